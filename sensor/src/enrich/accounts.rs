//! Who last wrote the files of the host's accounts, by what is told of files.

use std::sync::Arc;

use bartizan_bus::event::{AccountFile, Body, File, FileOpen, Process, SecurityEvent};

use crate::accounts::file_at;

/// A process, and the inode number of the file that it wrote, where that was told.
#[derive(Debug, Clone)]
struct Writer {
    process: Arc<Process>,
    inode: Option<u64>,
}

/// The last one of each file.
#[derive(Debug, Default)]
pub(super) struct Writers([Option<Writer>; 3]);

fn index(file: AccountFile) -> usize {
    match file {
        AccountFile::Passwd => 0,
        AccountFile::Group => 1,
        AccountFile::Shadow => 2,
    }
}

/// The file that an event says was written, or put where its path is.
fn written(body: &Body) -> Option<&File> {
    match body {
        Body::FileOpen(FileOpen { file, write, .. }) => (*write == Some(true)).then_some(file),
        Body::FileRename(rename) => Some(&rename.file),
        Body::FileLink(link) => Some(&link.file),
        Body::FileWrite(write) => Some(&write.file),
        _ => None,
    }
}

impl Writers {
    /// Takes note of an event.
    pub(super) fn note(&mut self, event: &SecurityEvent) {
        if let Some(file) = written(&event.body)
            && let Some(account_file) = file.path.as_deref().and_then(file_at)
            && let Some(process) = &event.process
        {
            self.0[index(account_file)] = Some(Writer { process: Arc::clone(process), inode: file.inode });
        }
    }

    /// Who last wrote `file`, whose inode is this: a path is that of a container, too, an inode is not.
    pub(super) fn of(&self, file: AccountFile, inode: u64) -> Option<Arc<Process>> {
        let writer = self.0[index(file)].as_ref()?;
        writer.inode.is_none_or(|written| written == inode).then(|| Arc::clone(&writer.process))
    }
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::{BootId, ExecId, FileRename, Severity};

    use super::*;
    use crate::enrich::Enricher;

    fn event(pid: u32, body: Body) -> SecurityEvent {
        let mut enricher = Enricher::new(BootId(1), "host".into(), 0, 8);
        let process = Process::of(ExecId { boot: BootId(1), start_ns: 1, pid, exec: 1 });
        SecurityEvent { process: Some(Arc::new(process)), ..enricher.own(1, Severity::Info, body) }
    }

    fn file(path: &str, inode: Option<u64>) -> File {
        File { path: Some(path.to_owned()), inode, ..File::default() }
    }

    #[test]
    fn the_last_one_that_wrote_this_very_file_is_named() {
        let mut writers = Writers::default();
        let who = |writers: &Writers, file, inode| writers.of(file, inode).map(|process| process.pid);
        assert_eq!(who(&writers, AccountFile::Passwd, 7), None);
        writers.note(&event(5, Body::FileRename(FileRename { file: file("/etc/passwd", Some(7)), ..FileRename::default() })));
        writers.note(&event(6, Body::FileOpen(FileOpen { file: file("/etc/passwd", Some(7)), write: Some(false), ..FileOpen::default() })));
        assert_eq!((who(&writers, AccountFile::Passwd, 7), who(&writers, AccountFile::Passwd, 8)), (Some(5), None));
        writers.note(&event(8, Body::FileOpen(FileOpen { file: file("/etc/shadow", None), write: Some(true), ..FileOpen::default() })));
        assert_eq!((who(&writers, AccountFile::Shadow, 1), who(&writers, AccountFile::Group, 1)), (Some(8), None));
    }
}
