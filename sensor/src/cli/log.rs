//! Reading a stream's log for an operator: what cannot be read is said and counted, and reading goes on where it can.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bartizan_bus::{LogReader, ReadError, Record, StreamName};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::exit::{Exit, Failure, chain, complain};
use super::out::{Out, Stop};

/// Undecodable records that are named one by one; the rest are only counted.
const NAMED: u64 = 20;

fn watch(folder: &Path) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    inotify.add_watch(folder, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
    Ok(inotify)
}

/// A stream's log with a count of what could not be read.
pub(crate) struct Log {
    reader: LogReader,
    stream: StreamName,
    undecodable: u64,
    damages: u64,
    last_damage: Option<(PathBuf, u64)>,
    quiet: bool,
    /// Tells that a segment grew or was begun; `None` where the system has no watch to give, and everybody looks now and then.
    growth: Option<Inotify>,
}

impl Log {
    pub(crate) fn open(data_dir: &Path, stream: StreamName) -> Result<Self, Failure> {
        let reader = LogReader::open(data_dir, stream).map_err(failure)?;
        // From before the first read, so that nothing that comes later goes unnoticed.
        let growth = watch(reader.dir()).ok();
        Ok(Self { reader, stream, undecodable: 0, damages: 0, last_damage: None, quiet: false, growth })
    }

    /// Waits a moment for the log to grow.
    pub(crate) fn wait(&self, out: &Out) -> Result<(), Stop> {
        out.wait(self.growth.as_ref().map(AsFd::as_fd))?;
        // What is told now is read next, whatever it was.
        while self.growth.as_ref().is_some_and(|growth| growth.read_events().is_ok_and(|events| !events.is_empty())) {}
        Ok(())
    }

    /// For reading a second time what was read (and complained about) before.
    pub(crate) fn open_again(data_dir: &Path, stream: StreamName) -> Result<Self, Failure> {
        Self::open(data_dir, stream).map(|log| Self { quiet: true, ..log })
    }

    fn say(&self, message: impl std::fmt::Display) {
        if !self.quiet {
            complain(message);
        }
    }

    /// To the first record at `time_ns` or later. Record times can be slightly out of order: filter as well.
    pub(crate) fn seek_time(&mut self, time_ns: i64) -> Result<(), Failure> {
        match self.reader.seek_time(time_ns) {
            // Told again, and counted, by the read that meets it.
            Ok(()) | Err(ReadError::Damaged { .. }) => Ok(()),
            Err(error) => Err(failure(error)),
        }
    }

    /// The next record, `None` at the present end.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, Failure> {
        loop {
            match self.reader.next() {
                Ok(record) => {
                    self.last_damage = None;
                    return Ok(record);
                }
                Err(error) => self.damage(error)?,
            }
        }
    }

    /// Says damage that reading can go on behind. The same damage twice in a row would be no progress.
    fn damage(&mut self, error: ReadError) -> Result<(), Failure> {
        match &error {
            ReadError::Damaged { path, offset, .. } if self.last_damage.as_ref() != Some(&(path.clone(), *offset)) => {
                self.last_damage = Some((path.clone(), *offset));
                self.damages += 1;
                self.say(chain(&error));
                Ok(())
            }
            _ => Err(failure(error)),
        }
    }

    /// Notes that record `seq` was read and cannot be understood.
    pub(crate) fn undecodable(&mut self, seq: u64, why: &dyn std::error::Error) {
        self.undecodable += 1;
        if self.undecodable <= NAMED {
            self.say(format_args!("{} sequence {seq} cannot be shown: {}", self.stream, chain(why)));
        }
        if self.undecodable == NAMED {
            self.say("further records that cannot be shown are only counted");
        }
    }

    /// Says what was missed in all. `Failed` if anything was.
    pub(crate) fn finish(&self) -> Exit {
        if self.undecodable == 0 && self.damages == 0 {
            return Exit::Ok;
        }
        self.say(format_args!(
            "{} was not shown whole: {} records could not be decoded, {} damaged places were stepped over",
            self.stream, self.undecodable, self.damages
        ));
        Exit::Failed
    }
}

fn failure(error: ReadError) -> Failure {
    Failure::new(Exit::Failed, chain(&error))
}
