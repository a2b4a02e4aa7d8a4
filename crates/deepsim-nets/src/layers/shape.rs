//! Shapes of features.

use serde::{Deserialize, Serialize};

/// Most features that generators and discriminators take, far more than any network has: a larger number stands in
/// no honest file, and sums of it could overflow.
pub const MAX_FEATURES: i64 = 1 << 24;

/// Largest crop: six doublings from 4×4 give 256×256.
pub const MAX_CROP: i64 = 256;

/// Extent of what one operation of a network hands to the next: a map, or a vector of `channels` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Channels of a map, values of a vector.
    pub channels: i64,
    /// Height of a map; 1 for a vector.
    pub height: i64,
    /// Width of a map; 1 for a vector.
    pub width: i64,
    /// Whether it is a vector.
    pub flat: bool,
}

impl Extent {
    /// That of colour images, three channels of `height`×`width` pixels.
    pub fn image(height: i64, width: i64) -> Extent {
        Extent {
            channels: 3,
            height,
            width,
            flat: false,
        }
    }

    /// That of one image's features.
    pub fn of(features: FeatureShape) -> Extent {
        match features {
            FeatureShape::Vector(length) => Extent {
                channels: length,
                height: 1,
                width: 1,
                flat: true,
            },
            FeatureShape::Map { channels, size } => Extent {
                channels,
                height: size,
                width: size,
                flat: false,
            },
        }
    }

    /// A vector as the square map of so many channels that it holds, if it holds one; a map as it is.
    pub fn as_map(self, channels: i64) -> Option<Extent> {
        if !self.flat {
            return Some(self);
        }
        let side = self.channels.checked_div(channels)?.checked_isqrt()?;
        (side * side * channels == self.channels).then_some(Extent {
            channels,
            height: side,
            width: side,
            flat: false,
        })
    }
}

/// Shape of one image's features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureShape {
    /// A square map: channels and side.
    Map {
        /// Channels.
        channels: i64,
        /// Height and width.
        size: i64,
    },
    /// A vector of this length.
    Vector(i64),
}

impl FeatureShape {
    /// The sizes of one image's features, as tensors have them.
    pub fn sizes(self) -> Vec<i64> {
        match self {
            FeatureShape::Vector(length) => vec![length],
            FeatureShape::Map { channels, size } => vec![channels, size, size],
        }
    }

    /// Number of values.
    pub fn len(self) -> i64 {
        match self {
            FeatureShape::Map { channels, size } => channels * size * size,
            FeatureShape::Vector(n) => n,
        }
    }

    /// Whether there are no values at all.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Display for FeatureShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FeatureShape::Map { channels, size } => write!(f, "{channels}x{size}x{size}"),
            FeatureShape::Vector(n) => write!(f, "{n}"),
        }
    }
}
