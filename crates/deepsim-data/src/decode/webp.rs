//! What WebP says about its transparency in two places.

use std::borrow::Cow;

/// Behind `RIFF`, the length, `WEBP`.
const FIRST: usize = 12;
/// The flag for transparency in `VP8X`, and in the fourth byte behind the signature of `VP8L`.
const ALPHA: u8 = 0x10;
/// The flag of an animation's frame that lets it replace what lies below it.
const REPLACES: u8 = 0x02;
/// Where a frame's flags stand within `ANMF`, and its picture begins.
const FRAME_FLAGS: usize = 15;
const FRAME: usize = 16;

/// The file as libwebp reads it, where the crate goes by another place: a lossless picture says itself whether it has
/// alpha, whatever the header says; and an animation's first frame lies over nothing, so that it replaces that exactly
/// instead of being blended with it, which rounds.
pub(super) fn as_meant(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Some((b"VP8X", header)) = chunk(bytes, FIRST) else {
        return Cow::Borrowed(bytes);
    };
    let mut flags = Vec::new();
    let mut at = FIRST;
    while let Some((kind, data)) = chunk(bytes, at) {
        match kind {
            b"VP8L" if has_alpha(bytes, at) => flags.push((header, ALPHA)),
            b"ANMF" => {
                flags.push((data + FRAME_FLAGS, REPLACES));
                let inner = data + FRAME;
                if matches!(chunk(bytes, inner), Some((b"VP8L", _))) && has_alpha(bytes, inner) {
                    flags.push((header, ALPHA));
                }
                break;
            }
            _ => {}
        }
        at = behind(bytes, at);
    }
    flags.retain(|&(at, flag)| bytes.get(at).is_some_and(|byte| byte & flag == 0));
    if flags.is_empty() {
        return Cow::Borrowed(bytes);
    }
    let mut copy = bytes.to_vec();
    for (at, flag) in flags {
        copy[at] |= flag;
    }
    Cow::Owned(copy)
}

/// Whether alpha stands behind the picture that it is of, where libwebp does not look for it.
pub(super) fn has_alpha_behind(bytes: &[u8]) -> bool {
    let mut at = FIRST;
    let mut picture = false;
    while let Some((kind, _)) = chunk(bytes, at) {
        match kind {
            b"VP8 " | b"VP8L" => picture = true,
            b"ALPH" if picture => return true,
            _ => {}
        }
        at = behind(bytes, at);
    }
    false
}

/// The kind of the chunk at an offset, and where its data begin.
fn chunk(bytes: &[u8], at: usize) -> Option<(&[u8; 4], usize)> {
    let kind = bytes.get(at..)?.first_chunk()?;
    Some((kind, at + 8))
}

fn behind(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at + 4..at + 8) {
        Some(&[a, b, c, d]) => {
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            at + 8 + length + length % 2
        }
        _ => usize::MAX,
    }
}

fn has_alpha(bytes: &[u8], at: usize) -> bool {
    bytes.get(at + 12).is_some_and(|byte| byte & ALPHA != 0)
}
