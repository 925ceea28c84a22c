//! Out-of-memory kills: a descriptor that wakes the shim when `memory.events` changes, and the counters themselves.
//!
//! cgroup v2 reports changes of `memory.events` as inotify IN_MODIFY. Limits often sit on the pod's cgroup, so that is
//! watched too. The counters are read again at the exit of init, since the kernel may report the event after the exit.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::cgroup::{Cgroup, CgroupError};
use crate::stats::memory_events;

/// OOM kills so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OomKills {
    /// Of the container's own processes.
    pub container: u64,
    /// Of the whole pod, other containers included.
    pub pod: u64,
}

/// Watches one container, and its pod.
#[derive(Debug)]
pub struct OomWatch {
    container: Cgroup,
    inotify: Inotify,
}

impl OomWatch {
    /// Starts watching; fails without a memory controller.
    pub fn new(container: Cgroup) -> Result<Self, CgroupError> {
        let container = container.of_container();
        let file = |cgroup: &Cgroup| cgroup.path().join("memory.events");
        let failed = |action: &'static str, cgroup: &Cgroup, errno: Errno| CgroupError::File {
            action,
            path: file(cgroup),
            source: errno.into(),
        };
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(|errno| failed("watch", &container, errno))?;
        inotify
            .add_watch(&file(&container), AddWatchFlags::IN_MODIFY)
            .map_err(|errno| failed("watch", &container, errno))?;
        // The pod's cgroup may be the root, which has no such file.
        if let Some(pod) = container.parent()
            && let Err(errno) = inotify.add_watch(&file(&pod), AddWatchFlags::IN_MODIFY)
        {
            tracing::debug!(path = %file(&pod).display(), %errno, "pod memory events are not watched");
        }
        Ok(Self { container, inotify })
    }

    /// Takes the pending notifications; call when the descriptor is readable. Never blocks.
    pub fn drain(&self) {
        while self.inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
    }

    /// The counters now.
    pub fn kills(&self) -> OomKills {
        kills(&self.container)
    }
}

/// The counters of a container and its pod; zero for what has gone.
pub fn kills(container: &Cgroup) -> OomKills {
    let container = &container.clone().of_container();
    let of = |cgroup: &Cgroup| memory_events(cgroup).map(|events| events.oom_kill).unwrap_or(0);
    OomKills { container: of(container), pod: container.parent().as_ref().map_or(0, of) }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{self, Woken};
    use cryopod_command::Limits;
    use nix::poll::PollFlags;
    use std::time::Duration;

    #[test]
    fn a_kill_wakes_the_watcher_and_counts_on_both_levels() {
        let pod = tempfile::tempdir().expect("temporary directory");
        let container = pod.path().join("container");
        std::fs::create_dir(&container).expect("directory");
        std::fs::write(pod.path().join("memory.events"), "oom_kill 0\n").expect("file");
        std::fs::write(container.join("memory.events"), "oom_kill 0\n").expect("file");
        let watch = OomWatch::new(Cgroup::at(&container)).expect("watch");
        assert_eq!(watch.kills(), OomKills::default());

        std::fs::write(pod.path().join("memory.events"), "oom_kill 2\n").expect("file");
        let woken = wait::readable(watch.as_fd(), PollFlags::POLLIN, &Limits::within(Duration::from_secs(5)));
        assert_eq!(woken.expect("poll"), Woken::Ready);
        watch.drain();
        assert_eq!(watch.kills(), OomKills { container: 0, pod: 2 });
        let idle =
            wait::readable(watch.as_fd(), PollFlags::POLLIN, &Limits::within(Duration::from_millis(5)));
        assert!(matches!(idle.expect("poll"), Woken::Stopped(_)));
    }

    #[test]
    fn without_a_memory_controller_there_is_nothing_to_watch() {
        assert!(OomWatch::new(Cgroup::at("/nonexistent")).is_err());
    }
}
