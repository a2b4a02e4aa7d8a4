//! One program for all targets: libFuzzer around the one that `DEEPSIM_FUZZ_TARGET` names.
//!
//! `cargo xtask fuzz` builds and runs it; by hand: `DEEPSIM_FUZZ_TARGET=npy deepsim-fuzz -help=1`.

#![no_main]

use std::sync::OnceLock;

use deepsim_fuzz::{Target, target};
use libfuzzer_sys::fuzz_target;

/// A fault made on purpose, which `cargo xtask fuzz` must find first: otherwise its silence elsewhere means nothing.
/// Byte by byte, so that only a fuzzer that sees coverage gets there.
const CONTROL: Target = Target {
    name: "control",
    read: |bytes| {
        let mut met = 0;
        for (byte, wanted) in bytes.iter().zip(b"coverage") {
            if byte != wanted {
                return false;
            }
            met += 1;
        }
        assert!(met < 8, "found on purpose");
        true
    },
    catches_panics: false,
};

static CHOSEN: OnceLock<&Target> = OnceLock::new();

fn chosen() -> &'static Target {
    CHOSEN.get_or_init(|| {
        let name = std::env::var("DEEPSIM_FUZZ_TARGET").unwrap_or_default();
        let control = (name == CONTROL.name).then_some(&CONTROL);
        let Some(target) = control.or_else(|| target(&name)) else {
            eprintln!("DEEPSIM_FUZZ_TARGET={name}: no such target");
            std::process::exit(2);
        };
        if target.catches_panics {
            // libFuzzer's hook ends the process before anyone could catch.
            std::panic::set_hook(Box::new(|panic| eprintln!("caught: {panic}")));
        }
        target
    })
}

fuzz_target!(|bytes: &[u8]| {
    (chosen().read)(bytes);
});
