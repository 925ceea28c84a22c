//! Cases about send and receive.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::{Bench, Case, Failure, ensure, limits, refused};
use crate::{
    Base, DatasetName, Error, Name, Properties, ReceiveRequest, ResumeToken, SendFlags, SendRequest,
    SnapshotName, Stream,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "a_copy_keeps_guid_and_content", run: full },
    Case { name: "a_stream_can_be_a_file", run: file },
    Case { name: "an_increment_brings_what_changed", run: incremental },
    Case { name: "a_bookmark_is_base_enough", run: from_bookmark },
    Case { name: "a_clone_is_sent_from_its_origin", run: from_origin },
    Case { name: "a_raw_stream_is_received", run: raw },
    Case { name: "a_raw_stream_stays_encrypted", run: raw_encrypted },
    Case { name: "received_properties_are_those_asked_for", run: properties },
    Case { name: "a_size_is_estimated", run: size },
    Case { name: "send_errors_name_what_is_wrong", run: send_errors },
    Case { name: "a_full_stream_does_not_overwrite", run: existing },
    Case { name: "an_increment_needs_its_base", run: wrong_base },
    Case { name: "an_increment_does_not_undo_changes", run: diverged },
    Case { name: "a_clone_needs_the_origin_that_was_named", run: wrong_origin },
    Case { name: "a_truncated_stream_leaves_nothing", run: truncated },
    Case { name: "a_truncated_stream_is_resumed_by_its_token", run: resumed },
    Case { name: "an_interrupted_receive_is_told_and_can_be_dropped", run: aborted },
    Case { name: "a_damaged_stream_is_refused", run: damaged },
    Case { name: "what_is_no_stream_is_refused", run: no_stream },
    Case { name: "a_quota_stops_a_receive", run: quota },
    Case { name: "a_snapshot_is_busy_while_it_is_sent", run: busy },
];

const NOISE: usize = 1 << 20;

/// A file system with a snapshot of something that does not compress.
fn source(b: &Bench<'_>) -> Result<(DatasetName, SnapshotName), Failure> {
    let a = b.filesystem("a")?;
    b.write(&a, "file", "one")?;
    b.write_noise(&a, "noise", NOISE)?;
    let snapshot = b.snapshot(&a, "s1")?;
    Ok((a, snapshot))
}

fn mounted(b: &Bench<'_>, leaf: &str) -> Result<ReceiveRequest, Failure> {
    Ok(ReceiveRequest { unmounted: false, ..ReceiveRequest::new(&b.name(leaf)?) })
}

/// Sends into a file and returns its path.
fn to_file(b: &Bench<'_>, send: &SendRequest) -> Result<PathBuf, Failure> {
    let path = b.scratch.join("stream");
    b.zfs.send(send, File::create(&path)?.into(), &b.limits)?;
    Ok(path)
}

fn receive(b: &Bench<'_>, request: &ReceiveRequest, bytes: &[u8]) -> Result<crate::Received, Error> {
    let path = b.scratch.join("input");
    let system = |source| Error::System { op: crate::error::Op::new("write", path.display()), source };
    std::fs::write(&path, bytes).map_err(system)?;
    let file: OwnedFd = File::open(&path).map_err(system)?.into();
    b.zfs.receive(request, file, &b.limits)
}

fn full(b: &Bench<'_>) -> Result<(), Failure> {
    let (_, snapshot) = source(b)?;
    let received = b.zfs.copy(&SendRequest::full(&snapshot), &mounted(b, "copy")?, &b.limits)?;
    let copy = b.name("copy")?;
    ensure!(received.snapshot == copy.snapshot("s1")?, "{received:?}");
    ensure!(received.guid == b.get_snapshot(&snapshot)?.guid, "the guid differs");
    ensure!(
        b.get_snapshot(&received.snapshot)?.guid == received.guid,
        "the guid is not that of the snapshot"
    );
    ensure!(b.read(&copy, "file")? == "one", "the content differs");
    ensure!(b.get(&copy)?.guid != b.get(&snapshot.dataset())?.guid, "two datasets with one guid");
    let unmounted =
        b.zfs.copy(&SendRequest::full(&snapshot), &ReceiveRequest::new(&b.name("u")?), &b.limits)?;
    ensure!(!b.get(&unmounted.snapshot.dataset())?.mounted, "it was mounted");
    Ok(())
}

fn file(b: &Bench<'_>) -> Result<(), Failure> {
    let (_, snapshot) = source(b)?;
    let bytes = std::fs::read(to_file(b, &SendRequest::full(&snapshot))?)?;
    ensure!(bytes.len() > NOISE, "the stream has {} bytes only", bytes.len());
    let received = receive(b, &mounted(b, "copy")?, &bytes)?;
    ensure!(b.read(&received.snapshot.dataset(), "file")? == "one", "the content differs");
    Ok(())
}

fn incremental(b: &Bench<'_>) -> Result<(), Failure> {
    let (a, s1) = source(b)?;
    b.zfs.copy(&SendRequest::full(&s1), &ReceiveRequest::new(&b.name("copy")?), &b.limits)?;
    b.write(&a, "file", "two")?;
    let s2 = b.snapshot(&a, "s2")?;
    let send = SendRequest::incremental(&s1, &s2);
    ensure!(b.zfs.send_size(&send, &b.limits)?.0 < NOISE as u64, "the increment is not small");
    let received = b.zfs.copy(&send, &ReceiveRequest::new(&b.name("copy")?), &b.limits)?;
    let copy = b.name("copy")?;
    ensure!(received.snapshot == copy.snapshot("s2")?, "{received:?}");
    b.zfs.mount(&copy, &b.limits)?;
    ensure!(b.read(&copy, "file")? == "two", "the change did not arrive");
    Ok(())
}

fn from_bookmark(b: &Bench<'_>) -> Result<(), Failure> {
    let (a, s1) = source(b)?;
    b.zfs.copy(&SendRequest::full(&s1), &ReceiveRequest::new(&b.name("copy")?), &b.limits)?;
    let mark = a.bookmark("m")?;
    b.zfs.bookmark(&s1, &mark, &b.limits)?;
    b.zfs.destroy_snapshots(&[s1], false, &b.limits)?;
    b.write(&a, "file", "two")?;
    let to = b.snapshot(&a, "s2")?;
    let stream = Stream::Incremental { from: Base::Bookmark(mark), to };
    let send = SendRequest { stream, flags: SendFlags::default() };
    b.zfs.copy(&send, &ReceiveRequest::new(&b.name("copy")?), &b.limits)?;
    b.zfs.mount(&b.name("copy")?, &b.limits)?;
    ensure!(b.read(&b.name("copy")?, "file")? == "two", "the change did not arrive");
    Ok(())
}

/// A clone of `a@s1` with a snapshot `ck`, and the base `base@s1` received from `a@s1`.
fn cloned(b: &Bench<'_>) -> Result<(SendRequest, SnapshotName), Failure> {
    let (_, s1) = source(b)?;
    let base = b.zfs.copy(&SendRequest::full(&s1), &ReceiveRequest::new(&b.name("base")?), &b.limits)?;
    let clone = b.name("clone")?;
    b.zfs.clone_snapshot(&s1, &clone, &Properties::new(), &b.limits)?;
    b.write(&clone, "file", "clone")?;
    let ck = b.snapshot(&clone, "ck")?;
    Ok((SendRequest { stream: Stream::FromOrigin(ck), flags: SendFlags::default() }, base.snapshot))
}

fn from_origin(b: &Bench<'_>) -> Result<(), Failure> {
    let (send, base) = cloned(b)?;
    ensure!(b.zfs.send_size(&send, &b.limits)?.0 < NOISE as u64, "the clone is sent whole");
    let request = ReceiveRequest { origin: Some(base.clone()), ..mounted(b, "copy")? };
    let received = b.zfs.copy(&send, &request, &b.limits)?;
    let copy = received.snapshot.dataset();
    ensure!(b.get(&copy)?.origin == Some(base), "it is no clone of the base: {:?}", b.get(&copy)?.origin);
    ensure!(b.read(&copy, "file")? == "clone", "the content differs");
    Ok(())
}

fn raw(b: &Bench<'_>) -> Result<(), Failure> {
    let (_, snapshot) = source(b)?;
    let flags = SendFlags { raw: true, large_blocks: false, compressed: false, embedded: false };
    let send = SendRequest { stream: Stream::Full(snapshot), flags };
    b.zfs.copy(&send, &mounted(b, "copy")?, &b.limits)?;
    ensure!(b.read(&b.name("copy")?, "file")? == "one", "the content differs");
    Ok(())
}

fn raw_encrypted(b: &Bench<'_>) -> Result<(), Failure> {
    let key = b.scratch.join("key");
    std::fs::write(&key, [7; 32])?;
    let encrypted = Properties::new()
        .with("encryption", "aes-256-gcm")
        .with("keyformat", "raw")
        .with("keylocation", format!("file://{}", key.display()));
    let secret = b.filesystem_with("secret", encrypted)?;
    b.write(&secret, "file", "one")?;
    let stream = Stream::Full(b.snapshot(&secret, "s")?);
    let flags = SendFlags { raw: true, large_blocks: false, compressed: false, embedded: false };
    let cipher = |leaf: &str| -> Result<Option<String>, Failure> {
        let found = b.get(&b.name(leaf)?)?.properties;
        Ok(found.get("encryption").filter(|cipher| *cipher != "off").map(str::to_owned))
    };
    // Unmounted: the copy's key is not loaded.
    let send = SendRequest { stream: stream.clone(), flags };
    b.zfs.copy(&send, &ReceiveRequest::new(&b.name("raw")?), &b.limits)?;
    let copied = cipher("raw")?;
    ensure!(copied.as_deref() == Some("aes-256-gcm"), "the copy is encrypted with {copied:?}");
    let send = SendRequest { stream, flags: SendFlags { raw: false, ..flags } };
    b.zfs.copy(&send, &mounted(b, "plain")?, &b.limits)?;
    let copied = cipher("plain")?;
    ensure!(copied.is_none(), "the readable copy is encrypted with {copied:?}");
    ensure!(b.read(&b.name("plain")?, "file")? == "one", "the content differs");
    Ok(())
}

fn properties(b: &Bench<'_>) -> Result<(), Failure> {
    let (_, snapshot) = source(b)?;
    let set = Properties::new().with("canmount", "noauto").with("cryopod:id", "c1").with("readonly", "on");
    let exclude = vec!["mountpoint".to_owned(), "cryopod:none".to_owned()];
    let request = ReceiveRequest { set, exclude, ..ReceiveRequest::new(&b.name("copy")?) };
    b.zfs.copy(&SendRequest::full(&snapshot), &request, &b.limits)?;
    let found = b.get(&b.name("copy")?)?;
    ensure!(found.properties.own("cryopod:id") == Some("c1"), "{:?}", found.properties);
    ensure!(found.properties.own("readonly") == Some("on") && !found.mounted, "{found:?}");
    Ok(())
}

fn size(b: &Bench<'_>) -> Result<(), Failure> {
    let (_, snapshot) = source(b)?;
    let send = SendRequest::full(&snapshot);
    let estimate = b.zfs.send_size(&send, &b.limits)?.0;
    let real = std::fs::metadata(to_file(b, &send)?)?.len();
    ensure!(estimate > real / 2 && estimate < real * 2, "estimated {estimate}, sent {real}");
    Ok(())
}

fn send_errors(b: &Bench<'_>) -> Result<(), Failure> {
    let (a, s1) = source(b)?;
    let sink = || -> Result<OwnedFd, Failure> { Ok(File::create(b.scratch.join("stream"))?.into()) };
    let send = |request: &SendRequest| -> Result<Result<(), Error>, Failure> {
        Ok(b.zfs.send(request, sink()?, &b.limits))
    };
    refused(send(&SendRequest::full(&a.snapshot("none")?))?, "not-found")?;
    refused(b.zfs.send_size(&SendRequest::full(&a.snapshot("none")?), &b.limits), "not-found")?;
    refused(send(&SendRequest::incremental(&a.snapshot("none")?, &s1))?, "base-missing")?;
    let s2 = b.snapshot(&a, "s2")?;
    refused(send(&SendRequest::incremental(&s2, &s1))?, "base-missing")?;
    let stream = Stream::FromOrigin(s1);
    refused(send(&SendRequest { stream, flags: SendFlags::default() })?, "not-a-clone")?;
    let token: ResumeToken = "1-bad-0-0".parse()?;
    let stream = Stream::Resume(token);
    refused(send(&SendRequest { stream, flags: SendFlags::default() })?, "stream-corrupt")?;
    refused(send(&SendRequest::full(&"nosuchpool/a@s".parse()?))?, "pool-missing")?;
    Ok(())
}

fn existing(b: &Bench<'_>) -> Result<(), Failure> {
    let (_, s1) = source(b)?;
    let target = b.filesystem("there")?;
    b.write(&target, "file", "mine")?;
    let request = ReceiveRequest::new(&target);
    refused(b.zfs.copy(&SendRequest::full(&s1), &request, &b.limits), "exists")?;
    ensure!(b.read(&target, "file")? == "mine", "it was overwritten");
    let request = ReceiveRequest::new(&b.name("x/y")?);
    refused(b.zfs.copy(&SendRequest::full(&s1), &request, &b.limits), "not-found")?;
    Ok(())
}

fn wrong_base(b: &Bench<'_>) -> Result<(), Failure> {
    let (a, s1) = source(b)?;
    b.write(&a, "file", "two")?;
    let s2 = b.snapshot(&a, "s2")?;
    let increment = SendRequest::incremental(&s1, &s2);
    let request = ReceiveRequest::new(&b.name("none")?);
    refused(b.zfs.copy(&increment, &request, &b.limits), "base-missing")?;
    let other = b.filesystem("other")?;
    b.snapshot(&other, "s1")?;
    refused(b.zfs.copy(&increment, &ReceiveRequest::new(&other), &b.limits), "base-missing")?;
    ensure!(!b.exists(&b.name("none")?)? && !b.snapshot_exists(&other.snapshot("s2")?)?, "something arrived");
    Ok(())
}

fn diverged(b: &Bench<'_>) -> Result<(), Failure> {
    let (a, s1) = source(b)?;
    b.zfs.copy(&SendRequest::full(&s1), &mounted(b, "copy")?, &b.limits)?;
    b.write(&b.name("copy")?, "mine", "x")?;
    b.write(&a, "file", "two")?;
    let increment = SendRequest::incremental(&s1, &b.snapshot(&a, "s2")?);
    refused(b.zfs.copy(&increment, &mounted(b, "copy")?, &b.limits), "diverged")?;
    ensure!(b.read(&b.name("copy")?, "mine")? == "x", "the change is gone");
    Ok(())
}

fn wrong_origin(b: &Bench<'_>) -> Result<(), Failure> {
    let (send, base) = cloned(b)?;
    let other = b.filesystem("other")?;
    let wrong = b.snapshot(&other, "s1")?;
    let request = ReceiveRequest { origin: Some(wrong), ..ReceiveRequest::new(&b.name("copy")?) };
    refused(b.zfs.copy(&send, &request, &b.limits), "base-missing")?;
    let missing = other.snapshot("none")?;
    let request = ReceiveRequest { origin: Some(missing), ..request };
    refused(b.zfs.copy(&send, &request, &b.limits), "base-missing")?;
    ensure!(!b.exists(&b.name("copy")?)?, "something arrived");
    ensure!(b.snapshot_exists(&base)?, "the base is gone");
    Ok(())
}

fn truncated(b: &Bench<'_>) -> Result<(), Failure> {
    let (_, s1) = source(b)?;
    let bytes = std::fs::read(to_file(b, &SendRequest::full(&s1))?)?;
    let request = ReceiveRequest { resumable: false, ..ReceiveRequest::new(&b.name("copy")?) };
    for length in [bytes.len() / 2, bytes.len() - 1] {
        let error =
            refused(receive(b, &request, bytes.get(..length).unwrap_or_default()), "stream-truncated")?;
        ensure!(matches!(error, Error::StreamTruncated { token: None, .. }), "{error:?}");
        ensure!(!b.exists(&request.target)?, "something was left");
    }
    Ok(())
}

fn resumed(b: &Bench<'_>) -> Result<(), Failure> {
    let (_, s1) = source(b)?;
    let bytes = std::fs::read(to_file(b, &SendRequest::full(&s1))?)?;
    let request = mounted(b, "copy")?;
    let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
    let error = refused(receive(b, &request, half), "stream-truncated")?;
    let Error::StreamTruncated { token: Some(token), .. } = error else {
        return Err(Failure(format!("no token: {error:?}")));
    };
    ensure!(b.get(&request.target)?.resume_token.as_ref() == Some(&token), "the dataset has another token");
    let rest = SendRequest { stream: Stream::Resume(token), flags: SendFlags::default() };
    let size = b.zfs.send_size(&rest, &b.limits)?.0;
    ensure!(size < bytes.len() as u64 * 3 / 4, "the rest has {size} of {} bytes", bytes.len());
    let received = b.zfs.copy(&rest, &request, &b.limits)?;
    ensure!(received.snapshot == request.target.snapshot("s1")?, "{received:?}");
    ensure!(received.guid == b.get_snapshot(&s1)?.guid, "the guid differs");
    b.zfs.mount(&request.target, &b.limits)?;
    ensure!(b.read(&request.target, "file")? == "one", "the content differs");
    ensure!(b.get(&request.target)?.resume_token.is_none(), "the token is still there");
    Ok(())
}

fn aborted(b: &Bench<'_>) -> Result<(), Failure> {
    let (_, s1) = source(b)?;
    let bytes = std::fs::read(to_file(b, &SendRequest::full(&s1))?)?;
    let request = ReceiveRequest::new(&b.name("copy")?);
    let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
    refused(receive(b, &request, half), "stream-truncated")?;
    refused(receive(b, &request, &bytes), "resume-exists")?;
    b.zfs.abort_receive(&request.target, &b.limits)?;
    ensure!(!b.exists(&request.target)?, "the rest is still there");
    b.zfs.abort_receive(&request.target, &b.limits)?;
    receive(b, &request, &bytes)?;
    b.zfs.abort_receive(&request.target, &b.limits)?;
    ensure!(b.exists(&request.target)?, "the whole dataset was dropped");
    Ok(())
}

fn damaged(b: &Bench<'_>) -> Result<(), Failure> {
    let (_, s1) = source(b)?;
    let mut bytes = std::fs::read(to_file(b, &SendRequest::full(&s1))?)?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x40;
    }
    let request = ReceiveRequest { resumable: false, ..ReceiveRequest::new(&b.name("copy")?) };
    refused(receive(b, &request, &bytes), "stream-corrupt")?;
    ensure!(!b.exists(&request.target)?, "something was left");
    Ok(())
}

fn no_stream(b: &Bench<'_>) -> Result<(), Failure> {
    let request = ReceiveRequest::new(&b.name("copy")?);
    let noise: Vec<u8> = (0..4096_u32).map(|n| n.to_le_bytes()[0]).collect();
    refused(receive(b, &request, &noise), "stream-corrupt")?;
    refused(receive(b, &request, b""), "stream-truncated")?;
    ensure!(!b.exists(&request.target)?, "something was left");
    Ok(())
}

fn quota(b: &Bench<'_>) -> Result<(), Failure> {
    // A quota is enforced from one transaction group to the next, so the stream has to last for several.
    let a = b.filesystem("a")?;
    b.write_noise(&a, "noise", 8 * NOISE)?;
    let s1 = b.snapshot(&a, "s1")?;
    let small = b.filesystem_with("small", Properties::new().with("quota", "300K"))?;
    let request = ReceiveRequest { resumable: false, ..ReceiveRequest::new(&small.child("copy")?) };
    let error = refused(b.zfs.copy(&SendRequest::full(&s1), &request, &b.limits), "no-space")?;
    ensure!(matches!(error, Error::NoSpace { quota: true, .. }), "the quota is not named: {error}");
    ensure!(!b.exists(&request.target)?, "something was left");
    b.zfs.set(&Name::from(&small), &Properties::new().with("quota", "none"), &b.limits)?;
    b.zfs.copy(&SendRequest::full(&s1), &request, &b.limits)?;
    Ok(())
}

fn busy(b: &Bench<'_>) -> Result<(), Failure> {
    let (_, s1) = source(b)?;
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| b.zfs.send(&SendRequest::full(&s1), write, &b.limits));
        // One byte has come: the send has begun, and the full pipe keeps it from ending.
        nix::unistd::read(&read, &mut [0])?;
        // The command is a child of this process; the fake sends itself.
        let senders = [limits::children()?, vec![std::process::id()]].concat();
        let set = std::slice::from_ref(&s1);
        let destroyed = refused(b.zfs.destroy_snapshots(set, false, &b.limits), "busy");
        let deferred = refused(b.zfs.destroy_snapshots(set, true, &b.limits), "busy");
        drop(read);
        let sent = sending.join().map_err(|_| Failure("the sender panicked".to_owned()))?;
        ensure!(sent.is_err(), "a send into a closed pipe is said to have worked");
        for error in [destroyed?, deferred?] {
            let Error::Busy { holders, .. } = &error else { return Err(Failure(error.to_string())) };
            let ours = holders.streams.iter().any(|stream| senders.contains(&stream.pid));
            ensure!(ours, "none of {senders:?} is named: {error}");
        }
        Ok(())
    })
}
