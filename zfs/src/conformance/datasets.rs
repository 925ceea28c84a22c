//! Cases about datasets: create, look, list, clone, promote, rename, properties, destroy.

use super::{Bench, Case, Failure, ensure, refused};
use crate::{
    Bytes, CreateRequest, DatasetName, Filter, Kind, Kinds, Mountpoint, Name, NewKind, Properties, Rename,
    Source, Wanted,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "a_created_filesystem_is_there_and_mounted", run: created },
    Case { name: "create_sets_properties_in_the_same_call", run: create_properties },
    Case { name: "create_of_an_existing_name_is_refused", run: create_existing },
    Case { name: "create_below_a_missing_parent_needs_leave", run: create_parents },
    Case { name: "create_with_an_invalid_property_makes_nothing", run: create_invalid },
    Case { name: "a_volume_has_its_size", run: volume },
    Case { name: "absent_is_none_but_a_missing_pool_is_an_error", run: absent },
    Case { name: "a_listing_of_a_missing_root_is_not_found", run: list_missing },
    Case { name: "a_listing_is_in_the_order_of_creation", run: list_order },
    Case { name: "a_listing_keeps_to_depth_and_kinds", run: list_depth },
    Case { name: "inherited_marks_are_told_from_own_ones", run: inherited },
    Case { name: "set_then_inherit_brings_back_what_was", run: set_inherit },
    Case { name: "odd_property_values_survive", run: odd_values },
    Case { name: "destroy_of_an_absent_dataset_is_not_found", run: destroy_absent },
    Case { name: "destroy_of_a_pool_root_is_refused", run: destroy_root },
    Case { name: "destroy_with_dependents_lists_them", run: destroy_dependents },
    Case { name: "destroy_spares_clones_elsewhere", run: destroy_clones },
    Case { name: "a_clone_has_origin_and_content", run: clone },
    Case { name: "clone_errors_name_what_is_wrong", run: clone_errors },
    Case { name: "promote_lets_the_origin_go", run: promote },
    Case { name: "promote_of_no_clone_is_refused", run: promote_none },
    Case { name: "rename_keeps_identity_and_content", run: rename },
    Case { name: "rename_errors_name_what_is_wrong", run: rename_errors },
];

fn created(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.filesystem("a")?;
    let found = b.get(&name)?;
    ensure!(found.name == name && found.kind == Kind::Filesystem, "{found:?}");
    ensure!(found.guid.0 != 0 && found.createtxg > b.get(&b.root)?.createtxg, "{found:?}");
    ensure!(found.origin.is_none() && found.mounted && found.available.0 > 0, "{found:?}");
    b.write(&name, "file", "content")?;
    ensure!(b.read(&name, "file")? == "content", "the file is not there");
    Ok(())
}

fn create_properties(b: &Bench<'_>) -> Result<(), Failure> {
    let properties =
        Properties::new().with("cryopod:id", "x1").with("compression", "lz4").with("mountpoint", "legacy");
    let name = b.filesystem_with("a", properties)?;
    let found = b.get(&name)?;
    ensure!(found.properties.own("cryopod:id") == Some("x1"), "{:?}", found.properties);
    ensure!(found.properties.own("compression") == Some("lz4"), "{:?}", found.properties);
    ensure!(found.mountpoint == Some(Mountpoint::Legacy) && !found.mounted, "{found:?}");
    Ok(())
}

fn create_existing(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.filesystem("a")?;
    let again = CreateRequest::filesystem(&name, Properties::new());
    refused(b.zfs.create(&again, &b.limits), "exists")?;
    b.zfs.create(&again.with_parents(), &b.limits)?;
    Ok(())
}

fn create_parents(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.name("x/y/z")?;
    let create = CreateRequest::filesystem(&name, Properties::new());
    refused(b.zfs.create(&create, &b.limits), "not-found")?;
    b.zfs.create(&create.with_parents(), &b.limits)?;
    ensure!(b.exists(&b.name("x/y")?)? && b.exists(&name)?, "the parents are missing");
    Ok(())
}

fn create_invalid(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.name("a")?;
    let create = CreateRequest::filesystem(&name, Properties::new().with("nosuchproperty", "x"));
    refused(b.zfs.create(&create, &b.limits), "invalid-property")?;
    ensure!(!b.exists(&name)?, "it was created");
    Ok(())
}

fn volume(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.name("v")?;
    let kind = NewKind::Volume { size: Bytes(8 << 20), sparse: true };
    let create = CreateRequest { name: name.clone(), kind, properties: Properties::new(), parents: false };
    b.zfs.create(&create, &b.limits)?;
    let found = b.get(&name)?;
    ensure!(found.kind == Kind::Volume && found.volsize == Some(Bytes(8 << 20)), "{found:?}");
    ensure!(found.mountpoint.is_none() && !found.mounted, "{found:?}");
    Ok(())
}

fn absent(b: &Bench<'_>) -> Result<(), Failure> {
    ensure!(!b.exists(&b.name("none")?)?, "it exists");
    ensure!(!b.snapshot_exists(&b.name("none")?.snapshot("s")?)?, "it exists");
    ensure!(!b.snapshot_exists(&b.root.snapshot("none")?)?, "it exists");
    let elsewhere: DatasetName = "nosuchpool/a".parse()?;
    refused(b.zfs.dataset(&elsewhere, &b.limits), "pool-missing")?;
    refused(b.zfs.snapshot(&elsewhere.snapshot("s")?, &b.limits), "pool-missing")?;
    Ok(())
}

fn list_missing(b: &Bench<'_>) -> Result<(), Failure> {
    refused(b.zfs.list(&Filter::below(&b.name("none")?, Kinds::ALL), &b.limits), "not-found")?;
    let elsewhere: DatasetName = "nosuchpool/a".parse()?;
    refused(b.zfs.list(&Filter::below(&elsewhere, Kinds::ALL), &b.limits), "pool-missing")?;
    let nowhere = Filter { roots: Vec::new(), ..Filter::below(&b.root, Kinds::ALL) };
    refused(b.zfs.list(&nowhere, &b.limits), "invalid-request")?;
    Ok(())
}

fn names(b: &Bench<'_>, filter: &Filter) -> Result<Vec<String>, Failure> {
    let entries = b.zfs.list(filter, &b.limits)?;
    let below = format!("{}/", b.root);
    Ok(entries.iter().map(|entry| entry.name().to_string().replace(&below, "")).collect())
}

fn list_order(b: &Bench<'_>) -> Result<(), Failure> {
    for leaf in ["c", "a", "b"] {
        let name = b.filesystem(leaf)?;
        b.snapshot(&name, "s")?;
    }
    let datasets = names(b, &Filter::below(&b.root, Kinds::DATASETS))?;
    ensure!(datasets == [b.root.as_str(), "c", "a", "b"], "{datasets:?}");
    let snapshots = names(b, &Filter::below(&b.root, Kinds::SNAPSHOTS))?;
    ensure!(snapshots == ["c@s", "a@s", "b@s"], "{snapshots:?}");
    Ok(())
}

fn list_depth(b: &Bench<'_>) -> Result<(), Failure> {
    let a = b.filesystem("a")?;
    let inner = b.filesystem("a/inner")?;
    for name in [&a, &inner] {
        let snapshot = b.snapshot(name, "s")?;
        b.zfs.bookmark(&snapshot, &name.bookmark("m")?, &b.limits)?;
    }
    ensure!(names(b, &Filter::children_of(&a))? == ["a", "a/inner"], "children");
    ensure!(names(b, &Filter::snapshots_of(&a))? == ["a@s"], "snapshots of one");
    let one = Filter { depth: Some(0), ..Filter::below(&a, Kinds::ALL) };
    ensure!(names(b, &one)? == ["a"], "{:?}", names(b, &one)?);
    let marks = names(b, &Filter::below(&a, Kinds::BOOKMARKS))?;
    ensure!(marks == ["a#m", "a/inner#m"], "{marks:?}");
    let two = Filter { roots: vec![inner, a], ..Filter::children_of(&b.root) };
    ensure!(names(b, &two)? == ["a", "a/inner"], "overlapping roots: {:?}", names(b, &two)?);
    Ok(())
}

fn inherited(b: &Bench<'_>) -> Result<(), Failure> {
    let above = b.filesystem_with("a", Properties::new().with("cryopod:mark", "up"))?;
    let below = b.filesystem("a/b")?;
    let snapshot = below.snapshot("s")?;
    let own = Properties::new().with("cryopod:own", "1");
    b.zfs.snapshot_set(std::slice::from_ref(&snapshot), &own, &b.limits)?;
    let found = b.get(&below)?.properties;
    ensure!(found.get("cryopod:mark") == Some("up") && found.own("cryopod:mark").is_none(), "{found:?}");
    let source = found.property("cryopod:mark").map(|property| property.source.clone());
    ensure!(source == Some(Source::Inherited(above.to_string())), "{source:?}");
    let found = b.get_snapshot(&snapshot)?.properties;
    ensure!(found.get("cryopod:mark") == Some("up") && found.own("cryopod:mark").is_none(), "{found:?}");
    ensure!(found.own("cryopod:own") == Some("1"), "{found:?}");
    let wanted = Wanted::Named(vec!["cryopod:mark".to_owned(), "cryopod:none".to_owned()]);
    let listed = b.zfs.list(&Filter::below(&below, Kinds::DATASETS).wanting(wanted), &b.limits)?;
    let listed = listed.into_iter().find_map(crate::Entry::into_dataset).map(|dataset| dataset.properties);
    let listed = listed.unwrap_or_default();
    ensure!(listed.get("cryopod:mark") == Some("up") && listed.own("cryopod:mark").is_none(), "{listed:?}");
    ensure!(listed.get("cryopod:none").is_none(), "{listed:?}");
    Ok(())
}

fn set_inherit(b: &Bench<'_>) -> Result<(), Failure> {
    b.filesystem_with("a", Properties::new().with("cryopod:mark", "up"))?;
    let name = b.filesystem("a/b")?;
    let both = Properties::new().with("cryopod:mark", "own").with("atime", "off");
    b.zfs.set(&Name::from(&name), &both, &b.limits)?;
    let found = b.get(&name)?.properties;
    ensure!(found.own("cryopod:mark") == Some("own") && found.own("atime") == Some("off"), "{found:?}");
    b.zfs.inherit(&Name::from(&name), "cryopod:mark", &b.limits)?;
    let found = b.get(&name)?.properties;
    ensure!(found.get("cryopod:mark") == Some("up") && found.own("cryopod:mark").is_none(), "{found:?}");
    let snapshot = Name::from(&b.snapshot(&name, "s")?);
    b.zfs.set(&snapshot, &Properties::new().with("cryopod:state", "committed"), &b.limits)?;
    let bad = Properties::new().with("atime", "perhaps");
    refused(b.zfs.set(&Name::from(&name), &bad, &b.limits), "invalid-property")?;
    let missing = Name::from(&b.name("none")?);
    refused(b.zfs.set(&missing, &Properties::new().with("cryopod:a", "b"), &b.limits), "not-found")?;
    Ok(())
}

fn odd_values(b: &Bench<'_>) -> Result<(), Failure> {
    let value = "a b=c,d;\"e'\\ $(f) ä€ {\"json\":1}";
    let long = "x".repeat(8000);
    let name = b.filesystem("a")?;
    let set = Properties::new().with("cryopod:odd", value).with("cryopod:long", long.as_str());
    b.zfs.set(&Name::from(&name), &set, &b.limits)?;
    let found = b.get(&name)?.properties;
    ensure!(found.own("cryopod:odd") == Some(value), "{:?}", found.own("cryopod:odd"));
    ensure!(found.own("cryopod:long") == Some(long.as_str()), "the long value was changed");
    let snapshot = name.snapshot("s")?;
    b.zfs.snapshot_set(std::slice::from_ref(&snapshot), &set, &b.limits)?;
    let found = b.get_snapshot(&snapshot)?.properties;
    ensure!(found.own("cryopod:odd") == Some(value), "{:?}", found.own("cryopod:odd"));
    let broken = Properties::new().with("cryopod:odd", "two\nlines");
    refused(b.zfs.set(&Name::from(&name), &broken, &b.limits), "invalid-property")?;
    Ok(())
}

fn destroy_absent(b: &Bench<'_>) -> Result<(), Failure> {
    refused(b.zfs.destroy(&b.name("none")?, false, &b.limits), "not-found")?;
    refused(b.zfs.destroy(&"nosuchpool/a".parse()?, false, &b.limits), "pool-missing")?;
    Ok(())
}

fn destroy_root(b: &Bench<'_>) -> Result<(), Failure> {
    refused(b.zfs.destroy(&b.root.pool().root(), true, &b.limits), "invalid-request")?;
    Ok(())
}

fn destroy_dependents(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.filesystem("a")?;
    b.filesystem("a/b")?;
    b.snapshot(&name, "s")?;
    let error = refused(b.zfs.destroy(&name, false, &b.limits), "has-dependents")?;
    let text = error.to_string();
    ensure!(text.contains("a/b") || text.contains("a@s"), "no dependent is named: {text}");
    b.zfs.destroy(&name, true, &b.limits)?;
    ensure!(!b.exists(&name)?, "it is still there");
    Ok(())
}

fn destroy_clones(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.filesystem("a")?;
    let snapshot = b.snapshot(&name, "s")?;
    let clone = b.name("clone")?;
    b.zfs.clone_snapshot(&snapshot, &clone, &Properties::new(), &b.limits)?;
    let error = refused(b.zfs.destroy(&name, true, &b.limits), "has-dependents")?;
    ensure!(error.to_string().contains("clone"), "{error}");
    ensure!(b.exists(&clone)? && b.snapshot_exists(&snapshot)?, "something was destroyed");
    b.zfs.destroy(&clone, false, &b.limits)?;
    Ok(())
}

fn clone(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.filesystem("a")?;
    b.write(&name, "file", "before")?;
    let snapshot = b.snapshot(&name, "s")?;
    b.write(&name, "file", "after")?;
    let clone = b.name("clone")?;
    b.zfs.clone_snapshot(&snapshot, &clone, &Properties::new().with("cryopod:id", "c"), &b.limits)?;
    let found = b.get(&clone)?;
    ensure!(found.origin.as_ref() == Some(&snapshot) && found.mounted, "{found:?}");
    ensure!(found.properties.own("cryopod:id") == Some("c"), "{found:?}");
    ensure!(b.read(&clone, "file")? == "before", "the clone has other content");
    b.write(&clone, "file", "clone")?;
    ensure!(b.read(&name, "file")? == "after", "the clone writes to its source");
    ensure!(b.get_snapshot(&snapshot)?.clones == [clone], "the snapshot does not list it");
    Ok(())
}

fn clone_errors(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.filesystem("a")?;
    let snapshot = b.snapshot(&name, "s")?;
    let none = Properties::new();
    refused(b.zfs.clone_snapshot(&snapshot, &name, &none, &b.limits), "exists")?;
    refused(b.zfs.clone_snapshot(&name.snapshot("none")?, &b.name("c")?, &none, &b.limits), "not-found")?;
    refused(b.zfs.clone_snapshot(&snapshot, &b.name("x/y")?, &none, &b.limits), "not-found")?;
    refused(b.zfs.clone_snapshot(&snapshot, &"nosuchpool/a".parse()?, &none, &b.limits), "crosses-pools")?;
    ensure!(!b.exists(&b.name("c")?)?, "something was made");
    Ok(())
}

fn promote(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.filesystem("a")?;
    b.write(&name, "file", "kept")?;
    let snapshot = b.snapshot(&name, "s")?;
    let guid = b.get_snapshot(&snapshot)?.guid;
    let clone = b.name("clone")?;
    b.zfs.clone_snapshot(&snapshot, &clone, &Properties::new(), &b.limits)?;
    b.zfs.promote(&clone, &b.limits)?;
    ensure!(b.get_snapshot(&clone.snapshot("s")?)?.guid == guid, "the snapshot did not move");
    ensure!(b.get(&name)?.origin == Some(clone.snapshot("s")?), "the source is no clone now");
    b.zfs.destroy(&name, false, &b.limits)?;
    ensure!(b.read(&clone, "file")? == "kept", "the content is lost");
    ensure!(b.get(&clone)?.origin.is_none(), "it still has an origin");
    Ok(())
}

fn promote_none(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.filesystem("a")?;
    refused(b.zfs.promote(&name, &b.limits), "not-a-clone")?;
    refused(b.zfs.promote(&b.name("none")?, &b.limits), "not-found")?;
    Ok(())
}

fn rename(b: &Bench<'_>) -> Result<(), Failure> {
    let name = b.filesystem("a")?;
    b.filesystem("a/b")?;
    b.write(&name, "file", "kept")?;
    let snapshot = b.snapshot(&name, "s")?;
    let guid = b.get(&name)?.guid;
    let to = b.name("new/place")?;
    let how = Rename { parents: true, ..Rename::default() };
    b.zfs.rename(&name, &to, how, &b.limits)?;
    ensure!(b.get(&to)?.guid == guid && !b.exists(&name)?, "it was not moved");
    ensure!(
        b.exists(&to.child("b")?)? && b.snapshot_exists(&to.snapshot(snapshot.leaf())?)?,
        "not all moved"
    );
    ensure!(b.read(&to, "file")? == "kept", "the content is not at the new place");
    Ok(())
}

fn rename_errors(b: &Bench<'_>) -> Result<(), Failure> {
    let (a, other) = (b.filesystem("a")?, b.filesystem("b")?);
    let how = Rename::default();
    refused(b.zfs.rename(&a, &other, how, &b.limits), "exists")?;
    refused(b.zfs.rename(&b.name("none")?, &b.name("c")?, how, &b.limits), "not-found")?;
    refused(b.zfs.rename(&a, &b.name("x/y")?, how, &b.limits), "not-found")?;
    refused(b.zfs.rename(&a, &a.child("below")?, how, &b.limits), "invalid-request")?;
    refused(b.zfs.rename(&a, &"nosuchpool/a".parse()?, how, &b.limits), "crosses-pools")?;
    ensure!(b.exists(&a)?, "it was renamed");
    Ok(())
}
