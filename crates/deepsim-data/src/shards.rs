//! Reading and writing shard files.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use image::ExtendedColorType;
use image::codecs::jpeg::{JpegEncoder, PixelDensity};

use crate::decode::decode_bytes;
use crate::error::DataError;
use crate::fault::ImageFault;
use crate::manifest::{Sample, Shard, Store, shard_name};

/// A shard is closed when it has grown to this size. In unit tests a few images fill several.
const SHARD_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 1 << 30 };
/// Quality of stored JPEGs.
const QUALITY: u8 = 95;

/// The open shards of a prepared dataset, or of a part of one.
pub(crate) struct Shards {
    files: Vec<(PathBuf, Option<File>)>,
}

impl Shards {
    /// Opens every shard and compares its length.
    pub fn open(root: &Path, shards: &[Shard]) -> Result<Self, DataError> {
        let open = |shard: &Shard| {
            let path = root.join(&shard.file);
            let file = deepsim_files::open(&path).map_err(DataError::unreadable(&path))?;
            let found = file.metadata().map_err(DataError::unreadable(&path))?.len();
            if found == shard.bytes {
                Ok((path, Some(file)))
            } else {
                Err(DataError::ShardLength {
                    path,
                    found,
                    expected: shard.bytes,
                })
            }
        };
        Ok(Self {
            files: shards.iter().map(open).collect::<Result<_, _>>()?,
        })
    }

    /// Opens what is there, for finding out all that is not.
    pub fn open_incomplete(root: &Path, shards: &[Shard]) -> Self {
        let open = |shard: &Shard| {
            let path = root.join(&shard.file);
            let file = deepsim_files::open(&path).ok();
            (path, file)
        };
        Self {
            files: shards.iter().map(open).collect(),
        }
    }

    /// A sample's bytes, verified.
    pub fn read(&self, sample: &Sample) -> Result<Vec<u8>, DataError> {
        let (path, file) = &self.files[sample.shard];
        let Some(file) = file else {
            let fault = ImageFault::Truncated("its shard is missing".into());
            return Err(self.bad(sample, fault));
        };
        let mut bytes = vec![0; sample.bytes as usize];
        file.read_exact_at(&mut bytes, sample.offset)
            .map_err(|source| match source.kind() {
                ErrorKind::UnexpectedEof => self.bad(
                    sample,
                    ImageFault::Truncated("its shard is too short".into()),
                ),
                _ => DataError::unreadable(path)(source),
            })?;
        if blake3::hash(&bytes) == sample.blake3 {
            Ok(bytes)
        } else {
            Err(self.bad(sample, ImageFault::Checksum))
        }
    }

    /// A sample's pixels: rows of RGB, `size`×`size`.
    pub fn pixels(&self, sample: &Sample, store: Store, size: u32) -> Result<Vec<u8>, DataError> {
        let bytes = self.read(sample)?;
        match store {
            Store::Raw => Ok(bytes),
            Store::Jpeg => {
                let image = decode_bytes(&bytes).map_err(|fault| self.bad(sample, fault))?;
                let (width, height) = image.dimensions();
                if (width, height) != (size, size) {
                    let fault = ImageFault::StoredSize {
                        width,
                        height,
                        expected: size,
                    };
                    return Err(self.bad(sample, fault));
                }
                Ok(image.into_raw())
            }
        }
    }

    fn bad(&self, sample: &Sample, fault: ImageFault) -> DataError {
        let shard = self.files[sample.shard].0.clone();
        DataError::BadSample {
            shard,
            sample: sample.path.clone(),
            fault,
        }
    }
}

/// The bytes of a sample.
pub(crate) fn encode(pixels: Vec<u8>, store: Store, size: u32) -> Result<Vec<u8>, DataError> {
    match store {
        Store::Raw => Ok(pixels),
        Store::Jpeg => {
            let mut bytes = Vec::new();
            let mut encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
            encoder.set_pixel_density(PixelDensity::dpi(72));
            encoder
                .encode(&pixels, size, size, ExtendedColorType::Rgb8)
                .map_err(|error| DataError::Encode {
                    reason: error.to_string(),
                })?;
            Ok(bytes)
        }
    }
}

/// Expected bytes of `count` samples; exact for raw. Images of 256 pixels at this quality
/// take about half a byte a pixel; a third is added, for the disk must not fill up half-way.
pub(crate) fn expected_bytes(count: usize, store: Store, size: u32) -> u64 {
    let pixels = u64::from(size) * u64::from(size);
    let sample = match store {
        Store::Raw => 3 * pixels,
        Store::Jpeg => pixels * 2 / 3,
    };
    sample.saturating_mul(count as u64)
}

/// Writes samples into shards, one after the other.
pub(crate) struct ShardWriter {
    root: PathBuf,
    done: Vec<Shard>,
    current: Option<Open>,
}

struct Open {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl ShardWriter {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            done: Vec::new(),
            current: None,
        }
    }

    /// Appends a sample; gives its shard and offset.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(usize, u64), DataError> {
        if self
            .current
            .as_ref()
            .is_some_and(|open| open.bytes >= SHARD_BYTES)
        {
            self.close()?;
        }
        let index = self.done.len();
        let open = match &mut self.current {
            Some(open) => open,
            none => none.insert(Open::create(self.root.join(shard_name(index)))?),
        };
        let offset = open.bytes;
        open.file
            .write_all(bytes)
            .map_err(DataError::unwritable(&open.path))?;
        open.hasher.update(bytes);
        open.bytes += bytes.len() as u64;
        Ok((index, offset))
    }

    /// Closes the last shard; all are on the disk then.
    pub fn finish(mut self) -> Result<Vec<Shard>, DataError> {
        self.close()?;
        Ok(self.done)
    }

    fn close(&mut self) -> Result<(), DataError> {
        let Some(open) = self.current.take() else {
            return Ok(());
        };
        let Open {
            path,
            file,
            hasher,
            bytes,
        } = open;
        let file = file
            .into_inner()
            .map_err(|error| DataError::unwritable(&path)(error.into_error()))?;
        file.sync_all().map_err(DataError::unwritable(&path))?;
        let file = shard_name(self.done.len());
        self.done.push(Shard {
            file,
            bytes,
            blake3: hasher.finalize().to_hex().to_string(),
        });
        Ok(())
    }
}

impl Open {
    fn create(path: PathBuf) -> Result<Self, DataError> {
        let file = File::create_new(&path).map_err(DataError::unwritable(&path))?;
        Ok(Self {
            path,
            file: BufWriter::with_capacity(1 << 20, file),
            hasher: blake3::Hasher::new(),
            bytes: 0,
        })
    }
}
