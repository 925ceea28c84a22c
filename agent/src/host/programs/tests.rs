use super::*;

/// Payload, library and folder of links.
fn node(programs: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (payload, library, bin) = (dir.path().join("image"), dir.path().join("lib"), dir.path().join("bin"));
    fs::create_dir_all(&payload).unwrap();
    fill(&payload, programs);
    (dir, payload, library, bin)
}

fn fill(payload: &Path, programs: &[(&str, &str)]) {
    for (name, text) in programs {
        fs::write(payload.join(name), text).unwrap();
    }
    let other = payload.join("shim-lxc");
    if !other.exists() {
        symlink("shim", other).unwrap();
    }
}

fn versions(library: &Path) -> usize {
    fs::read_dir(library).unwrap().flatten().filter(|entry| entry.path().is_dir()).count()
}

#[test]
fn a_version_that_a_process_runs_from_outlives_the_next_one() {
    let (_dir, payload, library, bin) = node(&[("shim", "one"), ("agent", "one")]);
    let first = place(&payload, &library, &bin).unwrap();
    assert_eq!(fs::read_to_string(bin.join("shim-lxc")).unwrap(), "one");
    fill(&payload, &[("shim", "two")]);
    let second = place(&payload, &library, &bin).unwrap();
    assert_eq!(fs::read_to_string(bin.join("shim-lxc")).unwrap(), "two");
    prune(&library, &second, &BTreeSet::from([first.join("shim")])).unwrap();
    assert_eq!(versions(&library), 2, "a shim runs from the first");
    prune(&library, &second, &BTreeSet::new()).unwrap();
    assert_eq!(versions(&library), 1);
    assert!(second.is_dir() && !first.exists());
}

#[test]
fn a_program_that_the_next_version_lacks_stays_for_the_pods_that_are_deleted_by_it() {
    let (_dir, payload, library, bin) = node(&[("shim", "one"), ("old", "one")]);
    place(&payload, &library, &bin).unwrap();
    fs::remove_file(payload.join("old")).unwrap();
    let second = place(&payload, &library, &bin).unwrap();
    prune(&library, &second, &BTreeSet::new()).unwrap();
    assert_eq!(fs::read_to_string(bin.join("old")).unwrap(), "one");
}

#[test]
fn the_same_again_changes_nothing_and_a_half_copy_is_made_anew() {
    let (_dir, payload, library, bin) = node(&[("shim", "one")]);
    let first = place(&payload, &library, &bin).unwrap();
    let made = fs::metadata(first.join("shim")).unwrap().modified().unwrap();
    assert_eq!(place(&payload, &library, &bin).unwrap(), first);
    assert_eq!(fs::metadata(first.join("shim")).unwrap().modified().unwrap(), made);
    // Killed while it copied.
    let half = library.join(format!(".{}.new", first.file_name().unwrap().display()));
    fs::rename(&first, &half).unwrap();
    fs::write(half.join("rest"), "x").unwrap();
    assert_eq!(place(&payload, &library, &bin).unwrap(), first);
    assert!(!first.join("rest").exists());
}

#[test]
fn a_program_of_somebody_else_is_left_alone() {
    let (_dir, payload, library, bin) = node(&[("shim", "one")]);
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("shim"), "by hand").unwrap();
    assert!(matches!(place(&payload, &library, &bin), Err(Error::Foreign(_))));
    assert_eq!(fs::read_to_string(bin.join("shim")).unwrap(), "by hand");
    fs::remove_file(bin.join("shim")).unwrap();
    place(&payload, &library, &bin).unwrap();
    // Replaced by hand later: it stays when ours goes.
    fs::remove_file(bin.join("shim")).unwrap();
    fs::write(bin.join("shim"), "by hand").unwrap();
    take_away(&library).unwrap();
    assert!(!library.exists());
    assert_eq!(fs::read_dir(&bin).unwrap().flatten().count(), 1);
}
