use std::fs;

use proptest::prelude::*;

use super::*;

fn actor() -> Actor {
    Actor { program: "test".into(), pid: 1, uid: 0, login: None, user: None }
}

fn filled(dir: &Path, count: usize) -> Log {
    let log = Log::at(dir);
    for number in 0..count {
        let id = format!("web-{number}").parse().unwrap();
        log.append(Entry::new(Operation::Capture).checkpoint(&id).message("ä\n\"quoted\""), actor()).unwrap();
    }
    log
}

fn text(dir: &Path) -> String {
    fs::read_to_string(dir.join(PRESENT)).unwrap()
}

#[test]
fn records_follow_each_other_and_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 3);
    let verdict = verify(&log).unwrap();
    assert_eq!((verdict.records, verdict.first, verdict.breaks.len()), (3, 1, 0));
    let last = records(&log, 2).unwrap();
    assert_eq!(last.iter().map(|it| it.number).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((last[1].previous.as_str(), &verdict.head), (last[0].hash.as_str(), &last[1].hash));
}

#[test]
fn who_asked_the_cluster_is_in_the_line_and_lines_without_it_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::at(dir.path());
    let asked = Entry::new(Operation::Capture).asked_by(Some("jane@example.com"));
    assert_eq!(log.append(asked, actor()).unwrap().actor.user.as_deref(), Some("jane@example.com"));
    let nobody = log.append(Entry::new(Operation::Capture).asked_by(Some("")), actor()).unwrap();
    assert_eq!(nobody.actor.user, None);
    let lines = text(dir.path());
    assert!(lines.lines().next().unwrap().contains(r#""user":"jane@example.com""#), "{lines}");
    assert!(!lines.lines().nth(1).unwrap().contains("\"user\""), "as before there were users: {lines}");
    assert!(verify(&log).unwrap().breaks.is_empty());
}

#[test]
fn a_failure_says_why_and_how_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::at(dir.path());
    let failed: Result<(), &str> = Err("no space");
    let record = log.append(Entry::new(Operation::Restore).result(&failed), actor()).unwrap();
    assert_eq!((record.outcome, record.message.as_deref()), (Outcome::Failure, Some("no space")));
}

#[test]
fn a_changed_a_removed_and_a_moved_record_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 4);
    let whole = text(dir.path());
    let lines: Vec<&str> = whole.lines().collect();
    let changed = whole.replacen("web-1", "web-9", 1);
    let removed = [lines[0], lines[2], lines[3]].join("\n") + "\n";
    let moved = [lines[0], lines[2], lines[1], lines[3]].join("\n") + "\n";
    for (what, text) in [("changed", changed), ("removed", removed), ("moved", moved)] {
        fs::write(dir.path().join(PRESENT), text).unwrap();
        assert!(!verify(&log).unwrap().breaks.is_empty(), "{what}");
    }
    // One that was recomputed no longer fits the next.
    let mut forged: Record = serde_json::from_str(lines[1]).unwrap();
    forged.message = Some("nothing happened".into());
    forged.hash = forged.digest();
    let text = [lines[0], &forged.line(), lines[2], lines[3]].join("\n") + "\n";
    fs::write(dir.path().join(PRESENT), text).unwrap();
    assert_eq!(verify(&log).unwrap().breaks.len(), 1);
}

#[test]
fn a_torn_line_is_cut_off_and_said() {
    for keep in [1, 40, 200] {
        let dir = tempfile::tempdir().unwrap();
        let log = filled(dir.path(), 2);
        let whole = text(dir.path());
        let torn = &whole[..whole.len() - keep];
        fs::write(dir.path().join(PRESENT), torn).unwrap();
        log.append(Entry::new(Operation::Delete), actor()).unwrap();
        assert!(verify(&log).unwrap().breaks.is_empty(), "{keep}");
        let kinds: Vec<Operation> = records(&log, 9).unwrap().iter().map(|it| it.operation).collect();
        assert_eq!(kinds, [Operation::Capture, Operation::Repair, Operation::Delete], "{keep}");
    }
}

#[test]
fn a_full_file_is_followed_by_another_and_the_chain_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 2);
    let mut file = File::open(dir.path().join(PRESENT)).unwrap();
    log.rotate(&mut file).unwrap();
    log.append(Entry::new(Operation::Hold), actor()).unwrap();
    let verdict = verify(&log).unwrap();
    assert_eq!((verdict.records, verdict.breaks.len()), (3, 0));
    assert_eq!(log.files().unwrap().len(), 2);
    // Old ones may be removed; what is left is a chain of its own.
    fs::remove_file(dir.path().join("audit-000000000001.jsonl")).unwrap();
    let verdict = verify(&log).unwrap();
    assert_eq!((verdict.records, verdict.first, verdict.breaks.len()), (1, 3, 0));
}

#[test]
fn writers_at_the_same_time_make_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| filled(dir.path(), 10));
        }
    });
    let verdict = verify(&Log::at(dir.path())).unwrap();
    assert_eq!((verdict.records, verdict.breaks.len()), (40, 0));
}

#[test]
fn a_log_that_somebody_damaged_is_not_continued_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 1);
    fs::write(dir.path().join(PRESENT), "rubbish\n").unwrap();
    let error = log.append(Entry::new(Operation::Delete), actor()).unwrap_err();
    assert!(error.to_string().contains("move the log aside"), "{error}");
}

proptest! {
    /// Whatever bytes are in the file, reading it ends and says so.
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(PRESENT), &bytes).unwrap();
        let verdict = verify(&Log::at(dir.path())).unwrap();
        prop_assert!(verdict.records == 0);
    }
}
