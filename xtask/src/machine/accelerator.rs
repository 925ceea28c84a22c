//! KVM where it works, software emulation else; found out by trying.
//!
//! A usable /dev/kvm says little: nested in some hypervisors it opens, starts a machine and then fails on the first
//! instruction that it would have to emulate. So the node's own kernel is booted up to the first line of its initial
//! RAM disk. The answer is kept for as long as host kernel and emulator are the same; a no for a day.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cryopod_command::{Command, Limits};

use crate::cache::Cache;
use crate::image::Image;
use crate::progress::say;
use crate::recipe::Recipe;

const ALIVE: &str = "node.probe: alive";
const PATIENCE: Duration = Duration::from_secs(20);
const ASKED_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// How guest code is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accelerator {
    Kvm,
    Tcg,
}

impl Accelerator {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// The emulator's arguments.
    pub(super) fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }

    /// The better one that works here.
    pub(super) fn find(cache: &Cache, image: &Image) -> Self {
        if nix::unistd::access("/dev/kvm", nix::unistd::AccessFlags::R_OK | nix::unistd::AccessFlags::W_OK)
            .is_err()
        {
            return Self::Tcg;
        }
        let kernel = fs::read_to_string("/proc/version").unwrap_or_default();
        let emulator = Command::new("qemu-system-x86_64").arg("--version").run(&Limits::none());
        let emulator = emulator.map(|output| output.stdout).unwrap_or_default();
        let answer =
            cache.root().join(format!("accelerator-{}", Recipe::default().text(kernel).text(emulator).key()));
        match fs::read_to_string(&answer).as_deref() {
            Ok("kvm") => return Self::Kvm,
            // A host that was busy for a moment may only have been too slow.
            Ok("tcg") if is_younger(&answer, ASKED_AGAIN) => return Self::Tcg,
            _ => {}
        }
        let found = if Self::Kvm.boots(image) { Self::Kvm } else { Self::Tcg };
        if found == Self::Tcg {
            say("/dev/kvm is there and does not run the node's kernel: the node will be emulated");
        }
        // Not kept is only asked again.
        fs::write(&answer, found.name()).ok();
        found
    }

    fn boots(self, image: &Image) -> bool {
        let output = Command::new("qemu-system-x86_64")
            .args(["-machine", "q35"])
            .args(self.arguments())
            .args([
                "-m",
                "512",
                "-display",
                "none",
                "-nodefaults",
                "-no-reboot",
                "-serial",
                "stdio",
                "-kernel",
            ])
            .arg(image.kernel())
            .arg("-initrd")
            .arg(image.initrd())
            .args(["-append", "console=ttyS0 quiet panic=-1 node.probe"])
            .run(&Limits::within(PATIENCE));
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(ALIVE))
    }
}

fn is_younger(file: &Path, than: Duration) -> bool {
    let modified = fs::metadata(file).and_then(|meta| meta.modified()).ok();
    modified.and_then(|time| time.elapsed().ok()).is_some_and(|age| age < than)
}
