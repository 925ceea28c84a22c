//! What the texts of the tool mean, as tables.

use super::*;

/// Texts as printed by ZFS 2.3.9 (those marked * are read from libzfs, as they need a broken pool).
const TEXTS: &[(&str, &str)] = &[
    ("cannot open 'tank/none': dataset does not exist", "not-found"),
    ("cannot create 'tank/zt/a': dataset already exists", "exists"),
    ("cannot create 'tank/zt/x/y': parent does not exist", "not-found"),
    ("cannot create 'tank/zt/q': invalid property 'nosuch'", "invalid-property"),
    ("cannot create 'tank/zt/q': 'atime' must be one of 'on | off'", "invalid-property"),
    ("cannot create 'nosuch/x': no such pool 'nosuch'", "pool-missing"),
    ("cannot open 'nosuch': no such pool", "pool-missing"),
    (
        "cannot destroy 'tank/a': filesystem has children\nuse '-r' to destroy the following datasets:\ntank/a@s",
        "has-dependents",
    ),
    (
        "cannot destroy 'tank/a@s': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\ntank/c",
        "has-dependents",
    ),
    ("cannot destroy snapshot tank/a@s: snapshot is cloned", "has-dependents"),
    ("could not find any snapshots to destroy; check snapshot names.", "not-found"),
    ("cannot create snapshot 'tank/a@s': dataset already exists\nno snapshots were created", "exists"),
    (
        "cannot open 'tank/none': dataset does not exist\nusage:\n\tsnapshot [-r] [-o property=value] ...",
        "not-found",
    ),
    ("cannot promote 'tank/a': not a cloned filesystem", "not-a-clone"),
    ("cannot rename 'tank/a': dataset already exists", "exists"),
    (
        "cannot rollback to 'tank/a@s': more recent snapshots or bookmarks exist\nuse '-r' to force deletion of the following snapshots and bookmarks:\ntank/a@n",
        "not-latest",
    ),
    ("cannot create bookmark 'tank/a#m': bookmark exists", "exists"),
    ("bookmark 'tank/a#qq' does not exist.", "not-found"),
    ("cannot unmount '/tank/zt/a': pool or dataset is busy", "busy"),
    ("cannot destroy 'tank/a': dataset is busy", "busy"),
    (
        "cannot destroy snapshot tank/a@s: it's being held. Run 'zfs holds -r tank/a@s' to see holders.",
        "busy",
    ),
    ("cannot mount 'tank/a': legacy mountpoint\nuse mount(8) to mount this filesystem", "unsupported"),
    (
        "cannot receive new filesystem stream: destination 'tank/b' exists\nmust specify -F to overwrite it",
        "exists",
    ),
    (
        "cannot open 'tank/x': dataset does not exist\ncannot receive new filesystem stream: unable to restore to destination",
        "not-found",
    ),
    ("cannot receive new filesystem stream: incomplete stream", "stream-truncated"),
    ("cannot receive: failed to read from stream", "stream-truncated"),
    ("cannot receive new filesystem stream: checksum mismatch", "stream-corrupt"),
    ("cannot receive: invalid stream (bad magic number)", "stream-corrupt"),
    ("cannot receive incremental stream: destination 'tank/none' does not exist", "base-missing"),
    (
        "cannot receive incremental stream: most recent snapshot of tank/o does not\nmatch incremental source",
        "base-missing",
    ),
    (
        "cannot receive incremental stream: destination tank/b has been modified\nsince most recent snapshot",
        "diverged",
    ),
    ("cannot receive: specified origin fs (tank/o@none) does not exist", "base-missing"),
    ("cannot receive: local origin for clone tank/x@y does not exist", "base-missing"),
    ("cannot receive new filesystem stream: destination tank/q/c space quota exceeded.", "no-space"),
    ("warning: cannot send 'tank/a@s': not an earlier snapshot from the same fs", "base-missing"),
    ("cannot resume send: resume token is corrupt (incorrect checksum)", "stream-corrupt"),
    (
        "cannot receive incremental stream: destination tank/b contains partially-complete state from \"zfs receive -s\".",
        "resume-exists",
    ), // *
    ("cannot create 'tank/a': pool I/O is currently suspended", "pool-suspended"), // *
    ("cannot create snapshots : out of space", "no-space"),
    ("cannot receive new filesystem stream: out of space", "no-space"),
    ("cannot create snapshots : pool is read-only", "read-only"),
    ("cannot create 'small/b': out of space", "no-space"),
    ("cannot create snapshot 'tank/a@s': permission denied", "permission"), // *
    ("cannot receive: IV set guid mismatch. See the 'zfs receive' man page", "ivset-mismatch"), // *
    ("cannot receive new filesystem stream: inherited key must be loaded", "encryption"), // *
    ("cannot create 'tank/a': something nobody has seen yet", "unknown"),
    ("", "unknown"),
];

#[test]
fn texts_of_the_tool_have_their_meaning() {
    let op = Op::new("try", "tank/a");
    for (text, kind) in TEXTS {
        assert_eq!(classify(&op, &[], text).kind(), *kind, "{text}");
    }
}

#[test]
fn no_name_is_taken_for_a_reason() {
    let names = ["encryption-proxy", "does not exist", "busy", "permission denied x", "no such pool"];
    let texts = [
        ("cannot open '{}': dataset does not exist", "not-found"),
        ("cannot open '{}': something nobody has seen yet", "unknown"),
        ("cannot destroy snapshot {}@s: something nobody has seen yet", "unknown"),
        ("cannot create snapshot '{}@s': dataset already exists", "exists"),
        (
            "cannot receive incremental stream: destination {} has been modified\nsince most recent snapshot",
            "diverged",
        ),
        ("cannot receive new filesystem stream: destination {}@s space quota exceeded.", "no-space"),
        ("cannot receive: local origin for clone {}@s does not exist", "base-missing"),
        ("cannot restore to {}: something nobody has seen yet", "unknown"),
        (
            "cannot destroy 'tank/x': filesystem has children\nuse '-r' to destroy the following datasets:\n{}",
            "has-dependents",
        ),
    ];
    for name in names.map(|leaf| format!("tank/cryopod/{leaf}")) {
        let words = ["zfs", "verb", &name].map(str::to_owned);
        for (text, kind) in texts {
            let text = text.replace("{}", &name);
            let error = classify(&Op::new("try", &name), &words, &text);
            assert_eq!(error.kind(), kind, "{text}");
        }
    }
}

#[test]
fn what_libzfs_says_of_keys_is_about_encryption() {
    for text in [
        "warning: cannot send 'tank/a@s': source key must be loaded",
        "cannot mount 'tank/a': encryption key not loaded",
        "cannot receive incremental stream: cannot perform raw receive on top of existing unencrypted dataset",
        "cannot create 'tank/a': Keyformat required for new encryption root.",
        "cannot send tank/a@s: encrypted dataset tank/a may not be sent with properties without the raw flag",
    ] {
        assert_eq!(classify(&Op::new("try", "tank/a"), &[], text).kind(), "encryption", "{text}");
    }
}

#[test]
fn names_and_lists_are_taken_from_the_text() {
    let op = Op::new("destroy", "tank/a");
    let error = classify(&op, &[], TEXTS[7].0);
    assert_eq!(error.to_string(), "cannot destroy tank/a: these depend on it: tank/a@s");
    let error = classify(&op, &[], TEXTS[11].0);
    assert_eq!(error.to_string(), "cannot destroy tank/a: tank/a@s already exists");
    let op = Op::new("hold", "tank/a@s with tag job-1");
    let error = classify(&op, &[], "cannot hold snapshot 'tank/a@s': tag already exists on this dataset");
    assert_eq!(error.to_string(), "cannot hold tank/a@s with tag job-1: it already has the hold job-1");
}

#[test]
fn an_unknown_error_keeps_what_was_said() {
    let error = classify(
        &Op::new("create", "tank/a"),
        &[],
        "internal error:\n cannot do it: Value too large\nusage:\n x",
    );
    assert_eq!(error.to_string(), "cannot create tank/a: internal error: cannot do it: Value too large");
}
