//! How many bytes EVENTS may hold, and how many days that is. The arithmetic is pure; only [`Disk::of`] asks the system.

use std::io;
use std::path::Path;
use std::time::Duration;

use nix::sys::statvfs::statvfs;

const MIB: u64 = 1 << 20;

/// Part of the disk that EVENTS takes when nothing is configured.
pub const DISK_PART: u64 = 10;

/// Most bytes that it takes by itself.
pub const MOST: u64 = 8192 * MIB;

/// Fewest bytes that it takes by itself, as long as that is no more than half of the disk: four segments, so that deleting the oldest
/// does not empty the stream.
pub const LEAST: u64 = 256 * MIB;

/// So much of events must be there before a rate means something: a start tells every running process at once.
pub const RATE_MIN: Duration = Duration::from_secs(60 * 60);

const DAY_S: u64 = 24 * 60 * 60;

/// The file system that holds a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that it has.
    pub total: u64,
    /// Bytes that this user may still write.
    pub available: u64,
}

impl Disk {
    /// The one under `path`, or under the nearest folder above it that exists.
    ///
    /// # Errors
    /// What the system says when none can be asked.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for folder in path.ancestors() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            match statvfs(folder) {
                Ok(stat) => {
                    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
                    return Ok(Self { total: bytes(stat.blocks()), available: bytes(stat.blocks_available()) });
                }
                Err(error) => last = error.into(),
            }
            if last.kind() != io::ErrorKind::NotFound {
                break;
            }
        }
        Err(last)
    }
}

/// Why a budget is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetSource {
    /// `max_bytes` of the configuration.
    Configured,
    /// A tenth of the disk.
    DiskPart,
    /// A tenth of the disk would be more than [`MOST`].
    Most,
    /// A tenth of the disk would be less than [`LEAST`].
    Least,
    /// A small disk: half of it, which is less than [`LEAST`].
    HalfDisk,
    /// The disk could not be asked.
    UnknownDisk,
}

/// How many bytes a stream may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes.
    pub bytes: u64,
    /// Where the number comes from.
    pub source: BudgetSource,
    /// Bytes of the disk, where it could be asked.
    pub disk: Option<u64>,
}

impl Budget {
    /// What is configured, else a tenth of the disk within [`LEAST`] and [`MOST`].
    pub fn new(configured: Option<u64>, disk: Option<u64>) -> Self {
        let (bytes, source) = match (configured, disk) {
            (Some(bytes), _) => (bytes, BudgetSource::Configured),
            // A file system that has no blocks (some remote ones say so) is as good as unknown.
            (None, None | Some(0)) => (LEAST, BudgetSource::UnknownDisk),
            (None, Some(disk)) => match (disk / DISK_PART, disk / 2) {
                (part, _) if part >= MOST => (MOST, BudgetSource::Most),
                (part, _) if part >= LEAST => (part, BudgetSource::DiskPart),
                (_, half) if half >= LEAST => (LEAST, BudgetSource::Least),
                (_, half) => (half.max(MIB), BudgetSource::HalfDisk),
            },
        };
        Self { bytes, source, disk }
    }
}

/// What ends a stretch of kept events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndsBy {
    /// The age limit comes first.
    Age,
    /// The size limit does.
    Size,
}

/// How many days a budget holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// Bytes a day, at the present rate.
    pub bytes_per_day: u64,
    /// Days that are kept.
    pub days: f64,
    /// What comes first.
    pub ends_by: EndsBy,
}

/// How many days `budget` bytes and `max_age` hold, when `recent_bytes` came within `recent`. `None` when that is shorter than
/// [`RATE_MIN`].
pub fn forecast(budget: u64, max_age: Duration, recent_bytes: u64, recent: Duration) -> Option<Forecast> {
    let seconds = recent.as_secs();
    if recent < RATE_MIN {
        return None;
    }
    let bytes_per_day = u64::try_from(u128::from(recent_bytes) * u128::from(DAY_S) / u128::from(seconds)).unwrap_or(u64::MAX);
    let by_age = max_age.as_secs_f64() / DAY_S as f64;
    let by_size = if bytes_per_day == 0 { f64::INFINITY } else { budget as f64 / bytes_per_day as f64 };
    let (days, ends_by) = if by_size < by_age { (by_size, EndsBy::Size) } else { (by_age, EndsBy::Age) };
    Some(Forecast { bytes_per_day, days, ends_by })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1024 * MIB;

    #[test]
    fn a_tenth_of_the_disk_within_bounds() {
        let budget = |disk| {
            let Budget { bytes, source, disk: _ } = Budget::new(None, disk);
            (bytes, source)
        };
        assert_eq!(budget(Some(20 * GIB)), (2 * GIB, BudgetSource::DiskPart));
        assert_eq!(budget(Some(500 * GIB)), (8 * GIB, BudgetSource::Most));
        assert_eq!(budget(Some(80 * GIB)), (8 * GIB, BudgetSource::Most));
        assert_eq!(budget(Some(GIB)), (256 * MIB, BudgetSource::Least));
        assert_eq!(budget(Some(100 * MIB)), (50 * MIB, BudgetSource::HalfDisk));
        assert_eq!(budget(Some(MIB)), (MIB, BudgetSource::HalfDisk));
        assert_eq!((budget(None), budget(Some(0))), ((256 * MIB, BudgetSource::UnknownDisk), (256 * MIB, BudgetSource::UnknownDisk)));
        assert_eq!(Budget::new(Some(5), Some(GIB)).bytes, 5);
    }

    #[test]
    fn days_at_the_present_rate() {
        let week = Duration::from_secs(7 * DAY_S);
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(DAY_S));
        assert_eq!(forecast(8 * GIB, week, GIB, hour - Duration::from_secs(1)), None);
        let slow = forecast(8 * GIB, week, GIB, day).unwrap();
        assert_eq!((slow.bytes_per_day, slow.days, slow.ends_by), (GIB, 7.0, EndsBy::Age));
        let fast = forecast(8 * GIB, week, GIB, hour).unwrap();
        assert_eq!((fast.bytes_per_day, fast.ends_by), (24 * GIB, EndsBy::Size));
        assert!((fast.days - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(forecast(GIB, week, 0, day).unwrap().days, 7.0);
    }

    #[test]
    fn the_disk_of_a_folder_that_is_not_there_is_that_of_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::of(&folder.path().join("a/b/c")).unwrap();
        assert_eq!(disk.total, Disk::of(folder.path()).unwrap().total);
        assert!(disk.total > 0 && disk.available <= disk.total);
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(Disk::of(&folder.path().join("file/x")).is_err());
    }

    proptest! {
        #[test]
        fn no_disk_is_filled_and_nothing_overflows(disk: u64, recent_bytes: u64, recent: u64, max_age: u32) {
            let budget = Budget::new(None, Some(disk));
            prop_assert!(budget.bytes <= MOST && (budget.bytes <= disk / 2 || disk < 2 * MIB));
            if let Some(forecast) = forecast(budget.bytes, Duration::from_secs(u64::from(max_age)), recent_bytes, Duration::from_secs(recent)) {
                prop_assert!(forecast.days >= 0.0 && forecast.days <= f64::from(max_age) / 86_400.0);
            }
        }
    }
}
