//! Compiles the shim against the libtorch that torch-sys found.

use std::path::{Path, PathBuf};

/// The shim and the file formats were proved against this release line.
const EXPECTED: &str = "2.13.";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed={ASAN}");
    println!("cargo:rerun-if-env-changed={CUDA_INCLUDE}");
    println!("cargo:rustc-check-cfg=cfg(deepsim_asan)");
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB")
        .map_err(|_| "torch-sys did not say where libtorch is; run `cargo xtask setup`")?;
    let root: PathBuf = Path::new(&lib)
        .parent()
        .unwrap_or(Path::new("."))
        .to_path_buf();
    // torch-sys skips its own version check for the layout of a Python wheel.
    let version = std::fs::read_to_string(root.join("version.py"))
        .or_else(|_| std::fs::read_to_string(root.join("build-version")))
        .unwrap_or_default();
    if !version.contains(EXPECTED) {
        let found = version
            .lines()
            .find(|l| l.contains('2'))
            .unwrap_or("no version file")
            .trim();
        return Err(format!(
            "libtorch {EXPECTED}x is needed, found `{found}` in {}; run `cargo xtask setup`",
            root.display()
        )
        .into());
    }
    kernels()?;
    let bf16 = bf16_kernels()?;
    let mut shim = base();
    for set in &bf16 {
        shim.define(set.macro_name, None);
    }
    shim.opt_level(2)
        // at::parallel_for is a template over OpenMP: without the flag it runs on one thread.
        .flag("-fopenmp")
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"))
        .file("csrc/shim.cpp")
        .file("csrc/capability.cpp")
        .file("csrc/distance.cpp")
        .file("csrc/script_output.cpp")
        .file("csrc/ssim.cpp")
        .file("csrc/winograd.cpp")
        .file("csrc/bf16/plan.cpp")
        .file("csrc/bf16/detect.cpp")
        .file("csrc/bf16/dispatch.cpp")
        .file("csrc/bf16/function.cpp")
        .file("csrc/bf16/network.cpp");
    if feature("CUDA") {
        shim.includes(cuda_headers(&root)?).file("csrc/graph.cpp");
    }
    if watched() {
        println!("cargo:rustc-cfg=deepsim_asan");
        shim.file("csrc/asan.cpp");
    }
    shim.try_compile("deepsim_shim")?;
    group(&root)?;
    // The shim asks for the kernels: their archives come after it.
    for (name, _) in KERNELS {
        println!("cargo:rustc-link-lib=static=deepsim_{name}");
    }
    println!("cargo:rustc-link-lib=static=deepsim_bf16_plain");
    for set in &bf16 {
        println!("cargo:rustc-link-lib=static=deepsim_bf16_{}", set.isa);
    }
    if watched() {
        println!("cargo:rustc-link-lib=dylib=asan");
    }
    println!("cargo:rustc-link-search=native={lib}");
    // The OpenMP runtime that libtorch itself uses: two of them would fight for the cores.
    println!("cargo:rustc-link-lib=dylib:+verbatim=libgomp.so.1");
    if feature("CUDA") {
        println!("cargo:rustc-link-lib=torch_cuda");
        println!("cargo:rustc-link-lib=c10_cuda");
    }
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    Ok(())
}

/// Groups of processes: c10d and Gloo, which are inside libtorch_cpu. Wheels have c10d's headers and none
/// of Gloo's, so that this archive alone sees what stands in for them (csrc/group/gloo_stub/README.md).
fn group(root: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut build = base();
    build
        .opt_level(2)
        .define("USE_DISTRIBUTED", None)
        .define("USE_C10D_GLOO", None)
        .include("csrc/group/gloo_stub")
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"))
        .file("csrc/group/group.cpp")
        .file("csrc/group/sockets.cpp")
        .file("csrc/group/works.cpp");
    if feature("NCCL") {
        build
            .define("USE_C10D_NCCL", None)
            .includes(cuda_headers(root)?)
            .file("csrc/group/nccl.cpp");
    }
    Ok(build.try_compile("deepsim_group")?)
}

/// Whether a feature is on, by its name in capitals.
fn feature(name: &str) -> bool {
    std::env::var_os(format!("CARGO_FEATURE_{name}")).is_some()
}

/// Folders of CUDA's and NCCL's headers, separated by colons, for a build with `cuda` or `nccl`; they come before those
/// that `cargo xtask setup --only nccl` brings and that lie beside a libtorch out of Python's wheels.
const CUDA_INCLUDE: &str = "DEEPSIM_CUDA_INCLUDE";

/// What libtorch's headers for CUDA include, a header of each package: CUDA's runtime, its compiler's, and its C++
/// library. With `nccl` that of NCCL, too.
const CUDA_HEADERS: [&str; 4] = [
    "cuda_runtime_api.h",
    "crt/host_defines.h",
    "nv/target",
    "nccl.h",
];

/// Where those headers are.
fn cuda_headers(root: &Path) -> Result<Vec<PathBuf>, String> {
    if !root.join("lib/libtorch_cuda.so").is_file() {
        return Err(format!(
            "the features cuda and nccl need a libtorch with CUDA, and {} has none; run `cargo xtask setup --torch full`",
            root.display()
        ));
    }
    let own = std::env::var_os(CUDA_INCLUDE).unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&own)
        .filter(|folder| !folder.as_os_str().is_empty())
        .collect();
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let set_up = manifest.join("../../third_party/cuda-headers/nvidia/cu13/include");
    // Beside torch/ lie the wheels that it depends on.
    let wheels = root.parent().unwrap_or(root).join("nvidia");
    folders.extend([
        wheels.join("nccl/include"),
        wheels.join("cu13/include"),
        set_up.join("cccl"),
        set_up,
    ]);
    folders.retain(|folder| folder.is_dir());
    for header in CUDA_HEADERS {
        if header == "nccl.h" && !feature("NCCL") {
            continue;
        }
        if !folders.iter().any(|folder| folder.join(header).is_file()) {
            return Err(format!(
                "the features cuda and nccl need {header}: run `cargo xtask setup --only nccl`, or name the folders of CUDA's and \
                 NCCL's headers in {CUDA_INCLUDE}"
            ));
        }
    }
    Ok(folders)
}

/// The kernels' files are compiled once for each instruction set; the running processor or
/// DEEPSIM_CPU_CAPABILITY chooses (csrc/capability.cpp).
const KERNELS: [(&str, &[&str]); 3] = [
    ("kernels_avx512", &["-mavx512f", "-mfma"]),
    ("kernels_avx2", &["-mavx2", "-mfma"]),
    ("kernels_plain", &[]),
];

fn kernels() -> Result<(), cc::Error> {
    let x86 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    for (name, flags) in KERNELS {
        let mut build = base();
        build
            .opt_level(3)
            .define("DEEPSIM_ISA", name)
            .define("DEEPSIM_SSIM", format!("ssim_{name}").as_str())
            .file("csrc/winograd_kernel.cpp")
            .file("csrc/ssim_kernel.cpp");
        if x86 {
            for flag in flags {
                build.flag(flag);
            }
        }
        build.try_compile(&format!("deepsim_{name}"))?;
    }
    Ok(())
}

/// An instruction set that the bf16 kernels are compiled for.
struct Bf16Set {
    isa: &'static str,
    /// The shim asks for these kernels where it is defined.
    macro_name: &'static str,
    flags: &'static str,
}

const BF16_SETS: [Bf16Set; 2] = [
    Bf16Set {
        isa: "avx512",
        macro_name: "DEEPSIM_AVX512_BF16",
        flags: "-mavx512f -mavx512bw -mavx512vl -mavx512bf16 -mfma",
    },
    Bf16Set {
        isa: "amx",
        macro_name: "DEEPSIM_AMX",
        flags: "-mavx512f -mavx512bw -mavx512vl -mavx512bf16 -mfma -mamx-tile -mamx-bf16",
    },
];

/// The bf16 kernels: plain ones, and those for each instruction set that the compiler knows.
fn bf16_kernels() -> Result<Vec<&'static Bf16Set>, cc::Error> {
    let kernel = |isa: &str| {
        let mut build = base();
        build.opt_level(3).define("DEEPSIM_ISA", isa);
        for file in ["kernel", "linear", "maps", "rows"] {
            build.file(format!("csrc/bf16/{file}.cpp"));
        }
        build
    };
    kernel("plain").try_compile("deepsim_bf16_plain")?;
    let x86 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    let mut known = Vec::new();
    for set in &BF16_SETS {
        let flags = || set.flags.split(' ');
        let supported = flags().all(|flag| base().is_flag_supported(flag).unwrap_or(false));
        if !(x86 && linux && supported) {
            continue;
        }
        let mut build = kernel(set.isa);
        for flag in flags() {
            build.flag(flag);
        }
        build.try_compile(&format!("deepsim_bf16_{}", set.isa))?;
        known.push(set);
    }
    Ok(known)
}

/// `cargo xtask asan` sets it: AddressSanitizer watches the C++.
const ASAN: &str = "DEEPSIM_ASAN";

fn watched() -> bool {
    std::env::var_os(ASAN).is_some_and(|value| value == "1")
}

fn base() -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++20").pic(true).warnings(false);
    // Line tables alone, as Cargo.toml asks of Rust: whole debug information of libtorch's headers makes every test
    // program 60 MB larger.
    let debug = std::env::var("DEBUG").is_ok_and(|debug| debug != "false");
    build.debug(false);
    if debug {
        build.flag("-g1");
    }
    if watched() {
        build
            .flag("-fsanitize=address")
            .flag("-fno-omit-frame-pointer");
    }
    build
}
