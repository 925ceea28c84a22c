//! A pod that counts in memory and in files, can be frozen, and fails where a test wants it to.

use super::*;

/// What the fake pod does; shared with its repair, as the kernel would be.
#[derive(Debug, Default)]
pub(crate) struct PodState {
    pub(crate) count: u64,
    pub(crate) frozen: bool,
    pub(crate) repaired: Vec<String>,
    pub(crate) ended: Vec<String>,
    /// The next calls of this name fail.
    pub(crate) fail: Vec<(&'static str, usize)>,
    /// Links that CRIU makes on the shared volume during the dump of a container: its id, a name, the link to it.
    pub(crate) remaps: Vec<(&'static str, &'static str, &'static str)>,
    /// The container whose dumps CRIU refuses, with images half written.
    pub(crate) refuses: Option<&'static str>,
    /// As what they fail; Internal unless told otherwise.
    pub(crate) fail_as: Option<Kind>,
    pub(crate) calls: Vec<String>,
}

/// Two containers; each writes the common count into its root and into the shared volume.
pub(crate) struct FakePod {
    pub(super) pod: PodIdentity,
    pub(super) members: Vec<Member>,
    pub(crate) state: Mutex<PodState>,
}

impl FakePod {
    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, PodState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The pod runs for a moment; nothing happens while it is frozen.
    pub(crate) fn tick(&self) {
        let mut state = self.lock();
        if state.frozen || !state.ended.is_empty() {
            return;
        }
        state.count += 1;
        for member in &self.members {
            for disk in &member.disks {
                fs::write(live_path(&disk.source).join("count"), state.count.to_string()).unwrap();
            }
        }
    }

    fn call(&self, name: &'static str, container: &str) -> Result<(), TargetError> {
        let mut state = self.lock();
        state.calls.push(format!("{name} {container}"));
        let Some(at) = state.fail.iter().position(|(what, _)| *what == name) else { return Ok(()) };
        if state.fail[at].1 > 0 {
            state.fail[at].1 -= 1;
            return Ok(());
        }
        state.fail.remove(at);
        let kind = state.fail_as.unwrap_or(Kind::Internal);
        Err(TargetError { kind, ..failure(name, container) })
    }
}

fn failure(step: &'static str, container: &str) -> TargetError {
    let source = "planned".into();
    TargetError { step, container: container.into(), kind: Kind::Internal, refused: None, source }
}

fn live_path(source: &DiskSource) -> &Path {
    match source {
        DiskSource::Zfs { mountpoint: path, .. }
        | DiskSource::Tree { path }
        | DiskSource::Overlay { upper: path, .. } => path,
    }
}

impl Target for FakePod {
    fn pod(&self) -> &PodIdentity {
        &self.pod
    }

    fn members(&self) -> &[Member] {
        &self.members
    }

    fn freeze(&self, _limits: &Limits) -> Result<(), TargetError> {
        self.call("freeze", "pod")?;
        self.lock().frozen = true;
        Ok(())
    }

    fn thaw(&self) -> Result<(), TargetError> {
        self.call("thaw", "pod")?;
        self.lock().frozen = false;
        Ok(())
    }

    fn put_right(&self, member: &Member, frozen_by_us: bool) -> Result<(), TargetError> {
        self.call("put-right", &member.id)?;
        if frozen_by_us {
            self.lock().frozen = false;
        }
        Ok(())
    }

    fn pre_dump(&self, member: &Member, images: &ImageDir, _: &Limits) -> Result<DumpStats, TargetError> {
        self.call("pre-dump", &member.id)?;
        assert!(!self.lock().frozen, "pre-dump of a frozen pod");
        write_images(images, self.lock().count)
            .map_err(|error| TargetError { source: error.into(), ..failure("write", &member.id) })?;
        Ok(DumpStats { frozen_us: 1, pages_written: 100_000, ..DumpStats::default() })
    }

    fn dump(
        &self,
        member: &Member,
        images: &ImageDir,
        _options: &DumpOptions,
        at_instant: &AtInstant<'_>,
        _limits: &Limits,
    ) -> Result<DumpStats, TargetError> {
        self.call("dump", &member.id)?;
        assert!(self.lock().frozen, "dump of a running pod");
        write_images(images, self.lock().count)
            .map_err(|error| TargetError { source: error.into(), ..failure("write", &member.id) })?;
        if self.lock().refuses == Some(member.id.as_str()) {
            let refusal =
                Refusal::new("tty", format!("dump of {}: dangling tty", member.id), "use mode disk");
            let kind = Kind::FailedPrecondition;
            return Err(TargetError {
                kind,
                refused: Some(Box::new(refusal)),
                ..failure("dump", &member.id)
            });
        }
        self.call("hook", &member.id)?;
        let volume = live_path(&self.members[0].disks[1].source);
        let remaps: Vec<_> =
            self.lock().remaps.iter().filter(|(of, _, _)| *of == member.id).copied().collect();
        for (_, name, link) in &remaps {
            fs::hard_link(volume.join(name), volume.join(link)).unwrap();
        }
        // CRIU may run a hook twice (experiments.md E0).
        let answers = [at_instant(), at_instant()];
        for (_, _, link) in &remaps {
            fs::remove_file(volume.join(link)).unwrap();
        }
        for answer in answers {
            answer.map_err(|text| TargetError { source: text.into(), ..failure("dump", &member.id) })?;
        }
        self.call("dumped", &member.id)?;
        Ok(DumpStats { frozen_us: 7, pages_written: 1, ..DumpStats::default() })
    }
}

/// Fails as CRIU does when the directory is gone.
fn write_images(images: &ImageDir, count: u64) -> Result<(), std::io::Error> {
    assert_eq!(fs::read_dir(&images.dir)?.count(), 0);
    fs::write(images.dir.join("pages-1.img"), count.to_string())?;
    fs::write(images.dir.join("inventory.img"), "inventory")?;
    if let Some(parent) = &images.parent {
        std::os::unix::fs::symlink(parent, images.dir.join("parent"))?;
        assert!(images.dir.join("parent/pages-1.img").exists(), "the parent link leads nowhere");
    }
    Ok(())
}

impl Repair for FakePod {
    fn repair(&self, member: &Member, frozen_by_us: bool, _patience: Duration) -> Result<(), TargetError> {
        self.call("repair", &member.id)?;
        let mut state = self.lock();
        state.repaired.push(member.id.clone());
        if frozen_by_us {
            state.frozen = false;
        }
        Ok(())
    }

    fn end(&self, member: &Member, _patience: Duration) -> Result<bool, TargetError> {
        self.call("end", &member.id)?;
        let mut state = self.lock();
        if !state.frozen && state.ended.is_empty() || state.ended.contains(&member.id) {
            return Ok(false);
        }
        state.ended.push(member.id.clone());
        // A dead pod is not a frozen one.
        state.frozen = state.ended.len() < self.members.len();
        Ok(true)
    }
}
