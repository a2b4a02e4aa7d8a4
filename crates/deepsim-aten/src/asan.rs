//! Present only where the C++ is compiled under AddressSanitizer (`cargo xtask asan`): whether it watches.

#[cfg(test)]
mod tests {
    unsafe extern "C" {
        fn deepsim_asan_overstep(length: i32) -> i32;
    }

    /// Ends the process with a report; `cargo xtask asan` expects that.
    #[test]
    #[ignore = "it must fail"]
    fn an_overstep_is_reported() {
        // SAFETY: none. It reads one byte behind an allocation, which is what the sanitizer must stop.
        let behind = unsafe { deepsim_asan_overstep(16) };
        println!("read {behind}");
    }
}
