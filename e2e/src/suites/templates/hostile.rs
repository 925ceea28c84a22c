//! Archives that want out of their root, or want too much: refused with the entry named, and nothing outside is touched.

use serde_json::json;

use super::images::WORK;
use super::{Case, create};
use crate::cryopod;
use crate::shell;
use crate::suite::{Failure, ensure};

pub(super) const CASES: &[Case] = &[
    ("archives_that_lead_out_are_refused_with_the_entry", true, lead_out),
    ("bombs_and_broken_archives_are_refused", false, too_much),
];

/// An archive by the shell commands that make it (in a directory with `x`, a file), the entry that is named, and why.
type Hostile = (&'static str, &'static str, &'static str);

const OUT: &[Hostile] = &[
    ("tar -P --transform 's|^x|/cryopod-e2e-evil|' -cf $T x", "/cryopod-e2e-evil", "absolute"),
    ("tar -P --transform 's|^x|a/../../evil|' -cf $T x", "a/../../evil", "'..'"),
    ("ln -s ../.. up; tar -cf $T up; tar --transform 's|^x|up/evil|' -rf $T x", "up/evil", "above the root"),
    (
        "mkdir d; ln -s ../../../etc d/l; tar -cf $T d; tar --transform 's|^x|d/l/cryopod-e2e|' -rf $T x",
        "d/l/cryopod-e2e",
        "above the root",
    ),
    (
        "ln -s ../.. up; tar -cf $T up; : > w; tar --transform 's|^w|up/.wh.tmp|' -rf $T w",
        "up/.wh.tmp",
        "above the root",
    ),
    (": > w; tar --transform 's|^w|a/.wh...|' -cf $T w", "a/.wh...", "whiteout"),
    ("ln x y; tar -P --transform 'flags=h;s|^x|../../etc/passwd|' -cf $T x y", "y", "hard link"),
    ("ln x y; tar -P --transform 'flags=h;s|^x|/etc/passwd|' -cf $T x y", "y", "hard link"),
];

fn lead_out() -> Result<(), Failure> {
    shell::ok("rm -rf /cryopod-e2e-evil; sha256sum /etc/passwd > /run/cryopod-e2e/passwd.sum")?;
    for (number, (make, entry, reason)) in OUT.iter().enumerate() {
        let dir = format!("{WORK}/h{number}");
        shell::ok(&format!("set -e; mkdir -p {dir}; cd {dir}; echo evil > x; T=../h{number}.tar; {make}"))?;
        let said = cryopod::refused(&["template", "create", "e2e-h", &format!("tar:{dir}.tar")], 5)?;
        let named = said.contains(&format!("entry {entry} is refused")) && said.contains(reason);
        ensure(named, || format!("`{make}` is refused by {said}"))?;
    }
    shell::ok(
        "test ! -e /cryopod-e2e-evil && test ! -e /etc/cryopod-e2e && sha256sum -c /run/cryopod-e2e/passwd.sum",
    )?;
    let left = cryopod::ok(&["template", "prune", "--dry-run"])?;
    ensure(left["half_made"] == json!([]) && left["layers"] == json!([]), || format!("left is {left}"))
}

fn too_much() -> Result<(), Failure> {
    shell::ok(&format!(
        "cd {WORK} && head -c 600M /dev/zero > zeros && tar -cf - zeros | gzip -1 > bomb.tar.gz && rm zeros"
    ))?;
    let bomb = format!("tar:{WORK}/bomb.tar.gz");
    let said = cryopod::refused(&["template", "create", "e2e-h", &bomb], 9)?;
    ensure(said.contains("200 times its size"), || format!("the bomb is refused by {said}"))?;
    let base = format!("tar:{WORK}/base.tar");
    cryopod::refused(&["template", "create", "e2e-h", &base, "--max-size", "1MiB"], 9)?;
    cryopod::refused(&["template", "create", "e2e-h", &base, "--max-entries", "5"], 9)?;
    shell::ok(&format!(
        "cd {WORK} && head -c 5000000 base.tar > cut.tar && (cat base.tar; echo x) > more.tar && \
         gzip -c base.tar | head -c 1000000 > cut.tar.gz && xz -0 -c bomb.tar.gz > x.tar.xz || true"
    ))?;
    for (file, code, reason) in
        [("cut.tar", 12, "truncated"), ("more.tar", 5, "after its end"), ("cut.tar.gz", 12, "cut off")]
    {
        let said = cryopod::refused(&["template", "create", "e2e-h", &format!("tar:{WORK}/{file}")], code)?;
        ensure(said.contains(reason), || format!("{file} is refused by {said}"))?;
    }
    create("e2e-h", &base, &["--max-entries", "1000"]).map(drop)
}
