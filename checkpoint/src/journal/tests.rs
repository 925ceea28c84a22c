use proptest::prelude::*;

use super::*;
use crate::manifest::samples;
use crate::target::PodIdentity;

fn capture() -> Operation {
    Operation::Capture {
        checkpoint: "web-1".parse().unwrap(),
        pod: PodIdentity::default(),
        members: vec![samples::member("web", "tank/a")],
        snapshots: vec![PlannedSnapshot { dataset: "tank/a".parse().unwrap(), snapshot: "x".into() }],
        exit: false,
        stage: CaptureStage::Prepared,
    }
}

fn journal() -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    (dir, journal)
}

fn set_stage(operation: &mut Operation, to: CaptureStage) {
    if let Operation::Capture { stage, .. } = operation {
        *stage = to;
    }
}

#[test]
fn an_operation_in_progress_is_never_handed_to_recovery() {
    let (_dir, journal) = journal();
    let open = journal.begin(capture()).unwrap();
    let scan = journal.scan().unwrap();
    assert_eq!((scan.orphans.len(), scan.alive.len(), scan.damaged.len()), (0, 1, 0));
    assert_eq!(scan.alive[0], *open.entry());
    open.finish().unwrap();
    let scan = journal.scan().unwrap();
    assert_eq!((scan.orphans.len(), scan.alive.len()), (0, 0));
}

#[test]
fn an_operation_given_up_is_handed_over_once_as_it_was_last_written() {
    let (_dir, journal) = journal();
    let mut open = journal.begin(capture()).unwrap();
    open.update(|operation| set_stage(operation, CaptureStage::Freezing)).unwrap();
    drop(open);
    let first = journal.scan().unwrap();
    let Operation::Capture { stage, .. } = first.orphans[0].operation() else { panic!() };
    assert_eq!(*stage, CaptureStage::Freezing);
    let second = journal.scan().unwrap();
    assert_eq!((second.orphans.len(), second.alive.len()), (0, 1), "two recoveries at once");
    drop(first);
    assert_eq!(journal.scan().unwrap().orphans.len(), 1);
}

#[test]
fn an_entry_whose_process_lives_is_not_touched_even_without_its_lock() {
    let (dir, journal) = journal();
    let open = journal.begin(capture()).unwrap();
    fs::remove_file(dir.path().join(format!("{}.lock", open.entry().op))).unwrap();
    assert_eq!(journal.scan().unwrap().orphans.len(), 0);
}

#[test]
fn an_entry_of_a_dead_process_is_handed_over() {
    let (dir, journal) = journal();
    let open = journal.begin(capture()).unwrap();
    let mut entry = open.entry().clone();
    open.finish().unwrap();
    entry.owner.as_mut().unwrap().start_ticks += 1;
    fs::write(dir.path().join(format!("{}.json", entry.op)), serde_json::to_vec(&entry).unwrap()).unwrap();
    assert_eq!(journal.scan().unwrap().orphans.len(), 1);
}

#[test]
fn damaged_files_are_reported_and_moved_aside() {
    let (dir, journal) = journal();
    let entry = journal.begin(capture()).unwrap();
    let whole = serde_json::to_vec(entry.entry()).unwrap();
    entry.finish().unwrap();
    fs::write(dir.path().join("torn.json"), &whole[..whole.len() / 2]).unwrap();
    fs::write(dir.path().join("renamed.json"), &whole).unwrap();
    fs::write(dir.path().join("empty.json"), b"").unwrap();
    fs::write(dir.path().join("note.txt"), b"hello").unwrap();
    fs::create_dir(dir.path().join("dir.json")).unwrap();
    let scan = journal.scan().unwrap();
    assert_eq!((scan.damaged.len(), scan.orphans.len()), (5, 0), "{:?}", scan.damaged);
    assert!(scan.damaged.iter().all(|damaged| damaged.path.exists() && !damaged.reason.is_empty()));
    assert!(journal.scan().unwrap().damaged.is_empty());
}

#[test]
fn half_a_write_is_removed_and_the_entry_before_it_stands() {
    let (dir, journal) = journal();
    let open = journal.begin(capture()).unwrap();
    let temporary = dir.path().join(format!("{}.json.tmp", open.entry().op));
    fs::write(&temporary, b"{").unwrap();
    assert_eq!(journal.scan().unwrap().alive.len(), 1);
    assert!(temporary.exists(), "a live owner's write was disturbed");
    drop(open);
    assert_eq!(journal.scan().unwrap().orphans.len(), 1);
    assert!(!temporary.exists());
}

#[test]
fn a_newer_version_is_moved_aside_and_called_so() {
    let (dir, journal) = journal();
    fs::write(dir.path().join("new.json"), br#"{"version": 9}"#).unwrap();
    assert!(journal.scan().unwrap().damaged[0].reason.contains("version 9"));
}

#[test]
fn an_entry_of_version_1_as_it_was_first_written_still_reads() {
    let entry = Entry::parse(include_bytes!("v1.json")).unwrap();
    assert!(matches!(entry.operation, Operation::Capture { .. }));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Entry::parse(&bytes).is_err());
    }

    #[test]
    fn a_truncated_entry_is_refused_and_a_changed_byte_never_panics(at in any::<prop::sample::Index>(), byte: u8) {
        let entry = Entry::new(Owner { pid: 1, start_ticks: 2, boot_id: "b".into() }, Timestamp::UNIX_EPOCH, capture());
        let mut bytes = serde_json::to_vec(&entry).unwrap();
        let at = at.index(bytes.len());
        prop_assert!(Entry::parse(&bytes[..at]).is_err());
        bytes[at] = byte;
        Entry::parse(&bytes).ok();
    }
}

#[test]
fn a_look_says_what_a_scan_would_and_changes_nothing() {
    let (dir, journal) = journal();
    let missing = dir.path().join("missing");
    assert_eq!(Journal::look(&missing).unwrap(), Look::default());
    assert!(!missing.exists());
    let alive = journal.begin(capture()).unwrap();
    let orphan = journal.begin(capture()).unwrap();
    let op = orphan.entry().op.clone();
    drop(orphan);
    fs::write(dir.path().join("x.json"), "{").unwrap();
    fs::write(dir.path().join("y.json.tmp"), "{").unwrap();
    fs::write(dir.path().join("strange"), "").unwrap();
    let before = files(dir.path()).unwrap();
    let look = Journal::look(dir.path()).unwrap();
    assert_eq!(look.orphans, [op]);
    assert_eq!(look.unreadable.len(), 2, "{look:?}");
    assert!(look.unreadable[0].contains("strange") && look.unreadable[1].contains("x.json"), "{look:?}");
    assert_eq!(files(dir.path()).unwrap(), before);
    alive.finish().unwrap();
}
