//! TensorBoard event files: scalars and images over the steps of a run.
//!
//! An event file is a sequence of TFRecords, each an `Event` message of TensorFlow's
//! `event.proto`, framed by its length and masked CRC-32Cs. TensorBoard reads all event files of a
//! folder in the order of their names, so a resumed run adds a file and never touches the old one.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

/// Writes one event file.
///
/// Records are buffered: call [`flush`](Self::flush) after each log step, so that a running
/// TensorBoard sees them. A file cut within a record (by a crash, say) is read up to there.
#[derive(Debug)]
pub struct EventWriter {
    file: BufWriter<File>,
}

impl EventWriter {
    /// Starts an event file in `dir`, which is made if missing.
    ///
    /// The name, `events.out.tfevents.SECONDS.deepsim.PID`, sorts behind those of all event files
    /// already there, even where the clock was set back in between.
    ///
    /// # Errors
    /// A folder that cannot be made or written to.
    pub fn create(dir: &Path) -> io::Result<EventWriter> {
        fs::create_dir_all(dir)?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let seconds = match last_stamp(dir)? {
            Some(last) => now.as_secs().max(last + 1),
            None => now.as_secs(),
        };
        let name = format!("{PREFIX}{seconds:010}.deepsim.{}", std::process::id());
        let file = File::create_new(dir.join(name))?;
        let mut writer = EventWriter {
            file: BufWriter::new(file),
        };
        writer.event(0, now.as_secs_f64(), What::FileVersion(VERSION.to_owned()))?;
        writer.flush()?;
        Ok(writer)
    }

    /// Starts a further event file in `dir` for a run that goes on at step `first_step`.
    ///
    /// The file begins with a session start at that step, upon which TensorBoard drops all that
    /// earlier files hold **from `first_step` on**: steps that were logged after the checkpoint
    /// and are now computed again. After a checkpoint of step `k`, whose own values stay, that is
    /// `k + 1`.
    ///
    /// # Errors
    /// As for [`create`](Self::create); a step beyond `i64`.
    pub fn resume(dir: &Path, first_step: u64, wall_time: f64) -> io::Result<EventWriter> {
        let mut writer = EventWriter::create(dir)?;
        let start = SessionLog {
            status: SESSION_START,
        };
        writer.event(first_step, wall_time, What::SessionLog(start))?;
        writer.flush()?;
        Ok(writer)
    }

    /// Writes values of one step, each under its tag; slashes in tags group them in TensorBoard.
    ///
    /// `wall_time` is in seconds since 1970.
    ///
    /// # Errors
    /// A failed write; a step beyond `i64`.
    pub fn scalars(&mut self, step: u64, wall_time: f64, values: &[(&str, f64)]) -> io::Result<()> {
        let value = values
            .iter()
            .map(|(tag, value)| Value {
                tag: (*tag).to_owned(),
                // TensorBoard keeps scalars as f32.
                value: Some(Kind::SimpleValue(*value as f32)),
            })
            .collect();
        self.event(step, wall_time, What::Summary(Summary { value }))
    }

    /// Writes an image of one step: the bytes of an RGB PNG file of `width` by `height` pixels.
    ///
    /// `wall_time` is in seconds since 1970.
    ///
    /// # Errors
    /// A failed write; a step, width or height beyond what the format holds.
    pub fn image_png(
        &mut self,
        step: u64,
        wall_time: f64,
        tag: &str,
        width: u32,
        height: u32,
        png: &[u8],
    ) -> io::Result<()> {
        let image = Image {
            height: i32::try_from(height).map_err(invalid)?,
            width: i32::try_from(width).map_err(invalid)?,
            colorspace: COLORSPACE_RGB,
            encoded_image_string: png.to_vec(),
        };
        let value = vec![Value {
            tag: tag.to_owned(),
            value: Some(Kind::Image(image)),
        }];
        self.event(step, wall_time, What::Summary(Summary { value }))
    }

    /// Hands all records to the operating system.
    ///
    /// # Errors
    /// A failed write.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn event(&mut self, step: u64, wall_time: f64, what: What) -> io::Result<()> {
        let event = Event {
            wall_time,
            step: i64::try_from(step).map_err(invalid)?,
            what: Some(what),
        };
        write_record(&mut self.file, &event.encode_to_vec())
    }
}

const PREFIX: &str = "events.out.tfevents.";
const VERSION: &str = "brain.Event:2";
const SESSION_START: i32 = 1;
const COLORSPACE_RGB: i32 = 3;

fn invalid(e: std::num::TryFromIntError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, e)
}

/// The latest time stamp in the names of `dir`'s event files, in seconds.
fn last_stamp(dir: &Path) -> io::Result<Option<u64>> {
    let mut last = None;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let stamp = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok())
            // More digits would sort elsewhere as text.
            .filter(|stamp| *stamp < 9_999_999_999);
        last = last.max(stamp);
    }
    Ok(last)
}

/// Length, CRC of the length, data, CRC of the data; all little-endian.
fn write_record(out: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&masked_crc(&length).to_le_bytes())?;
    out.write_all(data)?;
    out.write_all(&masked_crc(data).to_le_bytes())
}

/// CRC-32C rotated and offset, as the TFRecord format has it: a CRC over data that holds CRCs
/// would be weak.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

// The messages of event.proto and summary.proto, as far as they are written here.

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "Kind", tags = "2, 4")]
    value: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(float, tag = "2")]
    SimpleValue(f32),
    #[prost(message, tag = "4")]
    Image(Image),
}

#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    #[prost(int32, tag = "3")]
    colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    encoded_image_string: Vec<u8>,
}
