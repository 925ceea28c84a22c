//! Work inside a namespace of a container, on a thread that joins it and ends afterwards.
//!
//! setns changes the calling thread, so it must never be a thread that goes on to do anything else. Network, uts and ipc
//! namespaces can be joined by a thread of a multi-threaded process; user, mount and PID namespaces cannot.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// Runs `work` in the namespace at `path` (`/proc/<pid>/ns/<kind>` or a bind mount of it).
pub(crate) fn inside<T: Send>(
    path: &Path,
    kind: CloneFlags,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let namespace = File::open(path)?;
    std::thread::scope(|scope| {
        let handle = scope.spawn(|| {
            setns(&namespace, kind)?;
            work()
        });
        handle.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// Host and domain name of a uts namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UtsNames {
    host: String,
    domain: String,
}

const HOST: &str = "/proc/sys/kernel/hostname";
const DOMAIN: &str = "/proc/sys/kernel/domainname";

impl UtsNames {
    /// The names of a namespace.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        // These files show and change the namespace of the thread that reads and writes.
        let text =
            |file: &str| std::fs::read_to_string(file).map(|text| text.trim_end_matches('\n').to_owned());
        inside(path, CloneFlags::CLONE_NEWUTS, || Ok(Self { host: text(HOST)?, domain: text(DOMAIN)? }))
    }

    /// Gives the namespace these names.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        inside(path, CloneFlags::CLONE_NEWUTS, || {
            std::fs::write(HOST, &self.host)?;
            std::fs::write(DOMAIN, &self.domain)
        })
    }

    /// The same domain with another host name.
    pub(crate) fn with_host(self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self }
    }
}

/// Whether an ipc namespace holds System V shared memory, semaphores or message queues.
pub(crate) fn has_sysv_objects(path: &Path) -> io::Result<bool> {
    inside(path, CloneFlags::CLONE_NEWIPC, || {
        for kind in ["shm", "sem", "msg"] {
            // One line of headings, one line each.
            if std::fs::read_to_string(format!("/proc/sysvipc/{kind}"))?.lines().count() > 1 {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_has_gone_is_an_error_and_not_another_one() {
        let gone = Path::new("/proc/4294967295/ns/uts");
        assert_eq!(UtsNames::read(gone).expect_err("gone").kind(), io::ErrorKind::NotFound);
        assert_eq!(has_sysv_objects(gone).expect_err("gone").kind(), io::ErrorKind::NotFound);
    }
}
