//! The history as bytes for a ConfigMap: two weeks in some tens of KiB, checked, and open for what others add.
//!
//! ```text
//! magic "sidescal" | version u16 | zero u16 | CRC-32 of the body u32 | length of the body u32 | body
//! body: sections, each: length of the name u8 | name | length u32 | bytes        (little endian throughout)
//! ```
//!
//! The history's own sections are `history.minutes`, `history.starts` and `history.newest`; all others are handed through as they are,
//! also those that this version does not know.
//!
//! Values are quantised on a logarithmic scale: half of 1/64 is 0.8 %, while the noise of 3,000 arrivals in a minute is
//! 1.8 %. The scale counts thousandths, because a minute may have been observed for a millisecond (a leader that came at
//! its very end) and must not come back as one that nobody saw. Counts that go together (arrivals and completions, work in flight and service time) are kept as differences
//! of their logarithms, which are small.

use std::collections::BTreeMap;
use std::time::Duration;

use pco::ChunkConfig;
use pco::standalone::{simple_compress, simple_decompress_into};

use super::{Bucket, History, LAST_MILLIS, LONGEST, STARTS_KEPT};
use crate::report::Load;

const MAGIC: [u8; 8] = *b"sidescal";
const VERSION: u16 = 1;
const HEADER: usize = 20;

const MINUTES: &str = "history.minutes";
const STARTS: &str = "history.starts";
/// When the newest record ended, milliseconds since the epoch. Without it a reader would take the last minute for seen to
/// its end, and not ask the members for the rest.
const NEWEST: &str = "history.newest";

/// Steps for each factor of e. Twice as many cost 1 bit a value; half as many would be seen in small rates.
const STEPS: f64 = 64.0;
/// Values are counted in these: below one the scale is no longer logarithmic, and what rounds to none of them is lost.
const UNIT: f64 = 1e-3;
/// Steps that are one for the busiest second: 13 %.
const COARSE: i32 = 8;
/// No value is above e^47 thousandths, about 2e17: a decoded one stays finite and harmless whatever the bytes say.
const MOST_STEPS: i32 = 47 * 64;

/// The first version wrote [`FIRST_COLUMNS`], without the busiest second; a reader takes what more there is for a newer one's.
const COLUMNS: usize = 10;
const FIRST_COLUMNS: usize = 9;
type Columns = [Vec<i32>; COLUMNS];

/// What others keep beside the history, by name.
pub type Sections = BTreeMap<String, Vec<u8>>;

/// Why bytes are no checkpoint that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Something else lies there.
    #[error("not a history checkpoint: begins with {found:02x?}, not with `sidescal`")]
    Foreign {
        /// The first bytes, at most eight.
        found: Vec<u8>,
    },
    /// Written by a newer program.
    #[error(
        "checkpoint has version {found}, this program reads up to {known} (run the newer program, or start without history)"
    )]
    Newer {
        /// The version found.
        found: u16,
        /// The newest known.
        known: u16,
    },
    /// The end is missing.
    #[error("checkpoint is cut off: {found} of {expected} bytes")]
    Truncated {
        /// Bytes that should be there.
        expected: u64,
        /// Bytes that are.
        found: u64,
    },
    /// The bytes are not those that were written.
    #[error("checkpoint is corrupt: its CRC-32 is {found:08x}, {stored:08x} was written")]
    Corrupt {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the body.
        found: u32,
    },
    /// The checksum holds, yet the content makes no sense: written by a faulty program.
    #[error("checkpoint is malformed: {what}")]
    Malformed {
        /// What makes no sense.
        what: &'static str,
    },
    /// A column does not decompress.
    #[error("column {column} of the checkpoint does not decompress")]
    Column {
        /// Which one, from 0.
        column: usize,
        /// What pco says.
        #[source]
        source: pco::errors::PcoError,
    },
}

/// Reads through bytes, never beyond them.
struct Reader<'a>(&'a [u8]);

/// The checkpoint's bytes. Minutes and cold starts are kept; the finer tiers are younger than the members' own rings.
///
/// A section's name must be shorter than 256 bytes and not begin with `history.`; others are left out.
pub fn encode(history: &History, sections: &Sections) -> Vec<u8> {
    let mut body = Vec::new();
    put_section(&mut body, MINUTES, &encode_minutes(history));
    put_section(&mut body, STARTS, &encode_starts(history));
    if let Some(newest) = history.newest() {
        put_section(&mut body, NEWEST, &newest.as_millis().to_le_bytes());
    }
    for (name, bytes) in sections {
        let is_ours = name.starts_with("history.");
        debug_assert!(!is_ours && name.len() < 256, "section name `{name}`");
        if !is_ours {
            put_section(&mut body, name, bytes);
        }
    }
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(0_u16.to_le_bytes());
    bytes.extend(crc32(&body).to_le_bytes());
    bytes.extend(length(&body).to_le_bytes());
    bytes.extend(body);
    bytes
}

/// The history and the other sections from [`encode`]'s bytes.
pub fn decode(bytes: &[u8]) -> Result<(History, Sections), CheckpointError> {
    let mut sections = read_sections(checked_body(bytes)?)?;
    let minutes = sections.remove(MINUTES);
    let minutes = minutes.ok_or(CheckpointError::Malformed {
        what: "it has no minutes",
    })?;
    let mut history = decode_minutes(&minutes)?;
    for start in sections.remove(STARTS).unwrap_or_default().chunks_exact(4) {
        let millis = Reader(start).u32()?;
        history.record_start(Duration::from_millis(u64::from(millis)));
    }
    history.read_to = sections
        .remove(NEWEST)
        .and_then(|bytes| Some(i64::from_le_bytes(bytes.try_into().ok()?)))
        .filter(|newest| {
            history.minutes.slot_of(newest.saturating_sub(1)) + 1 == history.minutes.slots().end
        });
    Ok((history, sections))
}

/// The body, when the header and the checksum say that it is what was written.
fn checked_body(bytes: &[u8]) -> Result<&[u8], CheckpointError> {
    let begin = bytes.get(..MAGIC.len()).unwrap_or(bytes);
    if !MAGIC.starts_with(begin) || bytes.is_empty() {
        return Err(CheckpointError::Foreign {
            found: begin.to_vec(),
        });
    }
    let mut header = Reader(bytes);
    header.take(MAGIC.len())?;
    let version = header.u16()?;
    if version > VERSION {
        return Err(CheckpointError::Newer {
            found: version,
            known: VERSION,
        });
    }
    header.u16()?;
    let stored = header.u32()?;
    let length = header.u32()? as usize;
    let body = header.take(length)?;
    let found = crc32(body);
    if found != stored {
        return Err(CheckpointError::Corrupt { stored, found });
    }
    Ok(body)
}

fn put_section(body: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    let Ok(name_length) = u8::try_from(name.len()) else {
        return;
    };
    body.push(name_length);
    body.extend(name.as_bytes());
    body.extend(length(bytes).to_le_bytes());
    body.extend(bytes);
}

fn read_sections(body: &[u8]) -> Result<Sections, CheckpointError> {
    let mut sections = Sections::new();
    let mut reader = Reader(body);
    while !reader.0.is_empty() {
        let name_length = usize::from(reader.u8()?);
        let name = str::from_utf8(reader.take(name_length)?);
        let name = name.map_err(|_utf8| CheckpointError::Malformed {
            what: "a section's name is not UTF-8",
        })?;
        let length = reader.u32()? as usize;
        let bytes = reader.take(length)?;
        sections.insert(name.to_owned(), bytes.to_vec());
    }
    Ok(sections)
}

fn encode_starts(history: &History) -> Vec<u8> {
    let millis = |start: Duration| u32::try_from(start.as_millis()).unwrap_or(u32::MAX);
    let starts = history.starts();
    debug_assert!(starts.len() <= STARTS_KEPT, "a bounded distribution");
    starts
        .flat_map(|start| millis(start).to_le_bytes())
        .collect()
}

/// `capacity u32 | first slot i64 | slots u32 | columns u8`, then each column as `length u32 | pco`.
fn encode_minutes(history: &History) -> Vec<u8> {
    let slots = history.minutes.slots();
    let mut columns = Columns::default();
    for slot in slots.clone() {
        let row = to_row(&history.minutes.get(slot).copied().unwrap_or_default());
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = Vec::new();
    bytes.extend(count(history.minutes.capacity()));
    bytes.extend(slots.start.to_le_bytes());
    bytes.extend(count(columns[0].len()));
    bytes.extend(u8::try_from(COLUMNS).unwrap_or(u8::MAX).to_le_bytes());
    for column in &columns {
        let packed = simple_compress(column, &ChunkConfig::default())
            .expect("the default configuration is valid and a vector takes all bytes");
        bytes.extend(length(&packed).to_le_bytes());
        bytes.extend(packed);
    }
    bytes
}

fn decode_minutes(bytes: &[u8]) -> Result<History, CheckpointError> {
    let malformed = |what| CheckpointError::Malformed { what };
    let mut reader = Reader(bytes);
    let capacity = u64::from(reader.u32()?) * 60;
    let first = i64::from_le_bytes(reader.array()?);
    let rows = u64::from(reader.u32()?) * 60;
    // Checked before anything is allocated by it.
    if capacity > LONGEST.as_secs() || rows > capacity {
        return Err(malformed("it claims more minutes than a history keeps"));
    }
    if first.unsigned_abs() > LAST_MILLIS / 60_000 {
        return Err(malformed("its first minute is in no year"));
    }
    let written = usize::from(reader.u8()?);
    if written < FIRST_COLUMNS {
        return Err(malformed("it lacks columns"));
    }
    let rows = usize::try_from(rows / 60).unwrap_or(0);
    let mut columns = Columns::default().map(|_| vec![0; rows]);
    for (number, column) in columns.iter_mut().enumerate().take(written) {
        let length = reader.u32()? as usize;
        *column = decode_column(reader.take(length)?, rows, number)?;
    }
    let mut history = History::new(Duration::from_secs(capacity));
    history.minutes.restart_at(first);
    for row in 0..rows {
        history
            .minutes
            .push(from_row(columns.each_ref().map(|column| column[row])));
    }
    Ok(history)
}

fn decode_column(bytes: &[u8], rows: usize, column: usize) -> Result<Vec<i32>, CheckpointError> {
    let mut values = vec![0_i32; rows];
    let progress = simple_decompress_into(bytes, &mut values)
        .map_err(|source| CheckpointError::Column { column, source })?;
    if progress.n_processed == rows && progress.finished {
        Ok(values)
    } else {
        Err(CheckpointError::Malformed {
            what: "a column has not as many values as there are minutes",
        })
    }
}

fn to_row(bucket: &Bucket) -> [i32; COLUMNS] {
    let Bucket {
        load,
        seconds,
        busiest,
    } = bucket;
    let pods = steps_of(load.pod_seconds);
    let arrivals = steps_of(load.arrivals);
    let busy = steps_of(load.busy_seconds);
    [
        steps_of(*seconds),
        pods,
        arrivals,
        steps_of(load.completions) - arrivals,
        steps_of(load.failures),
        busy,
        steps_of(load.service_seconds) - busy,
        steps_of(load.gpu_busy_seconds),
        steps_of(load.gpu_observed_seconds) - pods,
        above(*busiest, load.arrivals / seconds),
    ]
}

fn from_row(row: [i32; COLUMNS]) -> Bucket {
    let [
        seconds,
        pods,
        arrivals,
        completions,
        failures,
        busy,
        service,
        gpu_busy,
        gpu_observed,
        busiest,
    ] = row;
    Bucket {
        load: Load {
            pod_seconds: value_of(pods),
            arrivals: value_of(arrivals),
            completions: value_of(arrivals.saturating_add(completions)),
            failures: value_of(failures),
            busy_seconds: value_of(busy),
            service_seconds: value_of(busy.saturating_add(service)),
            gpu_busy_seconds: value_of(gpu_busy),
            gpu_observed_seconds: value_of(pods.saturating_add(gpu_observed)),
        },
        seconds: value_of(seconds),
        busiest: from_above(busiest, value_of(arrivals) / value_of(seconds)),
    }
}

/// How far the busiest second lies above the `rate` of its minute, in coarse steps: the noise of a second's count is far wider.
fn above(busiest: f64, rate: f64) -> i32 {
    let steps = steps_of(busiest) - steps_of(rate);
    (steps.max(0) + COARSE / 2) / COARSE
}

fn from_above(steps: i32, rate: f64) -> f64 {
    if steps <= 0 || !rate.is_finite() {
        return 0.0;
    }
    let above = steps.min(MOST_STEPS).saturating_mul(COARSE);
    value_of(steps_of(rate).saturating_add(above))
}

/// Zero stays zero, what is more than zero stays more than zero; what is no number is zero.
#[expect(
    clippy::cast_possible_truncation,
    reason = "at most MOST_STEPS after the clamp, and NaN becomes 0"
)]
fn steps_of(value: f64) -> i32 {
    let value = value.max(0.0);
    let least = if value > 0.0 { 1.0 } else { 0.0 };
    let steps = ((value / UNIT).ln_1p() * STEPS).round();
    steps.clamp(least, f64::from(MOST_STEPS)) as i32
}

fn value_of(steps: i32) -> f64 {
    (f64::from(steps.clamp(0, MOST_STEPS)) / STEPS).exp_m1() * UNIT
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a checkpoint is far below 4 GiB")
}

/// CRC-32 as in zlib and PNG (reflected, polynomial 0xEDB88320). Bit by bit: 50 KiB every few minutes need no table.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _bit in 0..8 {
            let carry = if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
            crc = (crc >> 1) ^ carry;
        }
    }
    !crc
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], CheckpointError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(CheckpointError::Truncated {
                expected: count as u64,
                found: self.0.len() as u64,
            })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, CheckpointError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, CheckpointError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, CheckpointError> {
        self.array().map(u32::from_le_bytes)
    }
}
