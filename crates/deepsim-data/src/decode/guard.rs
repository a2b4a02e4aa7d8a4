//! A panic in a decoder becomes an error of one image. It ends no training run and prints nothing.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::fault::ImageFault;

thread_local! {
    /// Whether this thread is inside [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a decoder; its panic becomes an error of the image, and prints nothing.
pub(super) fn guarded<T>(decode: impl FnOnce() -> Result<T, ImageFault>) -> Result<T, ImageFault> {
    caught(decode).unwrap_or_else(|reason| Err(ImageFault::DecoderCrashed(reason)))
}

/// Runs third-party code on a file and returns the message of a panic. The process's panic hook
/// does not see this panic. It still sees all others: those of other threads, and later ones of
/// this thread.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static SILENCER: Once = Once::new();
    SILENCER.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            // A thread that is ending no longer has this cell. It is not inside [`guarded`].
            if !GUARDED.try_with(Cell::get).unwrap_or(false) {
                usual(panic);
            }
        }));
    });
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(before);
    result.map_err(|panic| {
        panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given")
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoders_panic_is_an_error_of_the_image() {
        let crash = guarded::<()>(|| panic!("index {} out of bounds", 7));
        assert!(matches!(crash, Err(ImageFault::DecoderCrashed(why)) if why.contains("index 7")));
        assert!(matches!(guarded(|| Ok(3)), Ok(3)));
        assert!(!GUARDED.get());
    }

    #[test]
    #[ignore = "run by the test below, whose process reads what it prints"]
    fn panics_inside_and_outside() {
        let inside = || guarded::<()>(|| panic!("inside a decoder"));
        assert!(inside().is_err());
        let elsewhere = std::thread::spawn(|| panic!("outside of one"));
        assert!(elsewhere.join().is_err());
        assert!(inside().is_err());
        assert!(catch_unwind(|| panic!("behind one")).is_err());
    }

    #[test]
    fn a_decoders_panic_prints_nothing_and_every_other_is_printed_as_before() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "decode::guard::tests::panics_inside_and_outside"])
            .args(["--ignored", "--nocapture", "--test-threads", "1"])
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{printed}");
        assert!(!printed.contains("inside a decoder"), "{printed}");
        assert!(printed.contains("outside of one"), "{printed}");
        assert!(printed.contains("behind one"), "{printed}");
    }
}
