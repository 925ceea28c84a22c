//! Exit codes of `cryopod`: the one table, documented in `docs/reference/exit-codes.md`.
//!
//! Scripts branch on these, so a number never changes its meaning. A test compares this table with the document
//! and with [`Kind`], so that neither can be forgotten.

use cryopod_checkpoint::kind::Kind;

/// Everything went well.
pub(crate) const OK: u8 = 0;
/// The command line itself is wrong (as clap and most tools have it).
pub(crate) const USAGE: u8 = 2;
/// `doctor` found something that works worse than it could.
pub(crate) const DOCTOR_WARN: u8 = 20;
/// `doctor` found something that does not work.
pub(crate) const DOCTOR_FAIL: u8 = 21;
/// `run`, `exec` or `restore --attach` failed before or beside the process, whose own code could be any other.
pub(crate) const NO_PROCESS: u8 = 125;
/// The reader of standard output has gone, as a shell reports SIGPIPE.
pub(crate) const CLOSED_PIPE: u8 = 141;

/// One code for each kind of error.
pub(crate) const KINDS: [(Kind, u8); 12] = [
    (Kind::Internal, 1),
    (Kind::NotFound, 3),
    (Kind::AlreadyExists, 4),
    (Kind::InvalidArgument, 5),
    (Kind::FailedPrecondition, 6),
    (Kind::Unimplemented, 7),
    (Kind::DeadlineExceeded, 8),
    (Kind::ResourceExhausted, 9),
    (Kind::PermissionDenied, 10),
    (Kind::Unavailable, 11),
    (Kind::DataLoss, 12),
    (Kind::Cancelled, 130),
];

/// Which of several errors decides the exit code, the first first: what is lost, then that the rest was not even tried,
/// what nobody expected, what the node lacks now, what is not possible as things are, and what merely is or is not there.
const WORST: [Kind; 12] = [
    Kind::DataLoss,
    Kind::Cancelled,
    Kind::Internal,
    Kind::ResourceExhausted,
    Kind::Unavailable,
    Kind::DeadlineExceeded,
    Kind::PermissionDenied,
    Kind::Unimplemented,
    Kind::FailedPrecondition,
    Kind::InvalidArgument,
    Kind::AlreadyExists,
    Kind::NotFound,
];

/// The worst of these kinds.
pub(crate) fn worst(kinds: impl Iterator<Item = Kind>) -> Kind {
    let rank = |kind: &Kind| WORST.iter().position(|known| known == kind);
    kinds.min_by_key(rank).unwrap_or(Kind::Internal)
}

/// The exit code of an error of that kind.
pub(crate) fn code(kind: Kind) -> u8 {
    KINDS.iter().find(|(known, _)| *known == kind).map_or(1, |(_, code)| *code)
}

/// The exit code for a process that ended by `signal`, as shells have it.
pub(crate) fn by_signal(signal: i32) -> u8 {
    u8::try_from(128_i32.saturating_add(signal)).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const ALL: [Kind; 12] = [
        Kind::NotFound,
        Kind::AlreadyExists,
        Kind::InvalidArgument,
        Kind::FailedPrecondition,
        Kind::Unimplemented,
        Kind::DeadlineExceeded,
        Kind::Cancelled,
        Kind::ResourceExhausted,
        Kind::PermissionDenied,
        Kind::Unavailable,
        Kind::DataLoss,
        Kind::Internal,
    ];

    /// Does not compile when a kind is added, so that `ALL` is completed then.
    fn listed(kind: Kind) {
        match kind {
            Kind::NotFound
            | Kind::AlreadyExists
            | Kind::InvalidArgument
            | Kind::FailedPrecondition
            | Kind::Unimplemented
            | Kind::DeadlineExceeded
            | Kind::Cancelled
            | Kind::ResourceExhausted
            | Kind::PermissionDenied
            | Kind::Unavailable
            | Kind::DataLoss
            | Kind::Internal => {}
        }
    }

    #[test]
    fn every_kind_has_a_code_of_its_own_that_nothing_else_uses() {
        let mut seen = BTreeMap::from([
            (OK, "ok"),
            (USAGE, "usage"),
            (DOCTOR_WARN, "doctor"),
            (DOCTOR_FAIL, "doctor"),
            (NO_PROCESS, "no process"),
            (CLOSED_PIPE, "closed pipe"),
        ]);
        for kind in ALL {
            listed(kind);
            assert!(KINDS.iter().any(|(known, _)| *known == kind), "{kind:?} has no code");
            assert_eq!(seen.insert(code(kind), "kind"), None, "the code of {kind:?} is taken");
        }
    }

    #[test]
    fn the_worst_of_several_is_data_loss_whatever_came_first() {
        assert_eq!(worst([Kind::Unavailable, Kind::DataLoss, Kind::NotFound].into_iter()), Kind::DataLoss);
        assert_eq!(worst([Kind::NotFound, Kind::Unavailable].into_iter()), Kind::Unavailable);
        assert_eq!(worst([Kind::NotFound, Kind::Cancelled].into_iter()), Kind::Cancelled);
        for kind in ALL {
            assert_eq!(WORST.iter().filter(|known| **known == kind).count(), 1, "{kind:?}");
        }
    }

    #[test]
    fn the_document_says_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/exit-codes.md");
        let document = std::fs::read_to_string(path).unwrap();
        for (kind, code) in KINDS {
            let name = serde_json::to_value(kind).unwrap();
            let row = format!("| {code} | `{}` |", name.as_str().unwrap());
            assert!(document.contains(&row), "exit-codes.md lacks the row {row}");
        }
        for code in [OK, USAGE, DOCTOR_WARN, DOCTOR_FAIL, NO_PROCESS, CLOSED_PIPE] {
            assert!(document.contains(&format!("| {code} |")), "exit-codes.md lacks code {code}");
        }
    }

    #[test]
    fn a_signal_is_reported_as_shells_do() {
        assert_eq!(by_signal(9), 137);
        assert_eq!(by_signal(64), 192);
    }
}
