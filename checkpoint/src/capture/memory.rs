//! The memory of the members: rounds while they run, then the dump with the disks at its instant.

use std::fs;
use std::net::IpAddr;

use cryopod_command::Limits;

use super::disks::Instant;
use super::{CaptureError, CaptureOptions, PreDump};
use crate::fault;
use crate::kind::Kind;
use crate::store::StoreError;
use crate::store::content::Content;
use crate::target::{DumpOptions, ImageDir, Member, Target};
use crate::timeline::Recorder;

/// A third round gained nothing.
const MAX_ROUNDS: usize = 2;
/// CRIU counts pages of this size.
const PAGE: u64 = 4096;
/// Name of the directory of the dump itself; the rounds before it are `1`, `2`.
const DUMP: &str = "dump";

/// Image directories of one member.
#[derive(Debug, Clone, Default)]
pub(super) struct Rounds {
    /// In the order of their making.
    pub(super) names: Vec<String>,
    /// CRIU's frozen time of the dump.
    pub(super) frozen_us: u64,
    /// See [`crate::target::DumpStats`].
    pub(super) connected: Option<Vec<IpAddr>>,
}

/// Pre-dump rounds of every member that is large enough; one entry per member. Makes the directories of the dumps as
/// well: in the freeze, a store that hangs must hang a program that can be left behind, and not us.
pub(super) fn pre_dump(
    target: &dyn Target,
    content: &Content,
    options: &CaptureOptions<'_>,
    recorder: &mut Recorder,
    limits: &Limits,
) -> Result<Vec<Rounds>, CaptureError> {
    let mut all = Vec::new();
    for member in target.members() {
        let mut rounds = Rounds::default();
        let wanted = options.pre_dump == PreDump::Auto && !options.flat && !member.was_paused;
        if wanted && member.rss_bytes >= options.pre_dump_min_rss {
            one(target, content, member, &mut rounds, options, recorder, limits)?;
        }
        content.create(&content.round(&member.name, DUMP))?;
        all.push(rounds);
    }
    Ok(all)
}

fn one(
    target: &dyn Target,
    content: &Content,
    member: &Member,
    rounds: &mut Rounds,
    options: &CaptureOptions<'_>,
    recorder: &mut Recorder,
    limits: &Limits,
) -> Result<(), CaptureError> {
    for number in 1..=MAX_ROUNDS {
        limits.check().map_err(CaptureError::Stopped)?;
        fault::step("capture.pre-dump")?;
        let name = number.to_string();
        options.progress.step(&format!("pre-dump {number} {}", member.name));
        let images = image_dir(content, member, &name, rounds);
        content.create(&images.dir)?;
        let result = recorder.phase(format!("pre-dump {number} {}", member.name), |_| {
            target.pre_dump(member, &images, limits)
        });
        match result {
            Ok(stats) => {
                rounds.names.push(name);
                if stats.pages_written.saturating_mul(PAGE) < options.pre_dump_min_rss {
                    break;
                }
            }
            Err(error) if matches!(error.kind, Kind::Cancelled | Kind::DeadlineExceeded) => {
                return Err(error.into());
            }
            Err(error) => {
                // Rounds only make the freeze shorter: without them the dump is whole.
                tracing::warn!(container = %member.id, %error, "going on without pre-dump rounds");
                let dir = images.dir.parent().unwrap_or(&images.dir).to_owned();
                fs::remove_dir_all(&dir).map_err(StoreError::io("remove", &dir))?;
                rounds.names.clear();
                break;
            }
        }
    }
    Ok(())
}

/// Dumps every member; each one's disks are captured at the instant of its dump.
pub(super) fn dump(
    target: &dyn Target,
    content: &Content,
    memory: &mut [Rounds],
    instant: &Instant<'_>,
    options: &CaptureOptions<'_>,
    recorder: &mut Recorder,
    limits: &Limits,
) -> Result<(), CaptureError> {
    let dump = DumpOptions { tcp: options.tcp, exit: options.exit };
    for ((index, member), rounds) in target.members().iter().enumerate().zip(memory) {
        limits.check().map_err(CaptureError::Stopped)?;
        fault::step("capture.dump")?;
        options.progress.step(&format!("dump {}", member.name));
        let images = image_dir(content, member, DUMP, rounds);
        let at_instant = || instant.member(index);
        let result = recorder.phase(format!("dump {}", member.name), |_| {
            target.dump(member, &images, &dump, &at_instant, limits)
        });
        // Our own reason says more than "the hook failed".
        instant.failure()?;
        let stats = result?;
        if !instant.is_done(index) {
            return Err(CaptureError::NoInstant { member: member.name.clone() });
        }
        rounds.names.push(DUMP.to_owned());
        rounds.frozen_us = stats.frozen_us;
        rounds.connected = stats.connected;
        fault::step("capture.dumped")?;
    }
    Ok(())
}

fn image_dir(content: &Content, member: &Member, name: &str, rounds: &Rounds) -> ImageDir {
    let parent = rounds.names.last().map(|last| format!("../{last}").into());
    ImageDir { dir: content.round(&member.name, name), parent }
}
