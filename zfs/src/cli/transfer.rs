//! `zfs send` and `zfs receive`.
//!
//! Streams pass through a pipe of ours (`Relay`), because a SIGKILL can be lost on these two: both start kernel
//! threads, and `spl_kthread_create` clears the "signal pending" flag of a caller that is being killed (OpenZFS
//! 2.1 to 2.4, module/os/linux/spl/spl-thread.c). The process then sleeps in its next pipe read or write with the
//! SIGKILL pending, and keeps the snapshot busy, until the other end of the pipe closes.

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use cryopod_command::{Command, PipelineError, Stdin, Stdout, pipeline};

use super::{Cli, Tool, from_command, run, set_options, text, unparsable};
use crate::error::Op;
use crate::{
    Base, Bytes, Entry, Error, Filter, Guid, Kinds, Limits, ReceiveRequest, Received, SendRequest,
    SnapshotName, Stream, Zfs, checks, parse,
};

impl Cli {
    pub(super) fn estimate(&self, op: &Op, send: &SendRequest, limits: &Limits) -> Result<Bytes, Error> {
        let args = self.send_args(op, send, limits)?;
        let command = self.command(Tool::Zfs).args(["send", "-n", "-P"]).args(args);
        let output = run(op, command, limits).map_err(|error| self.send_error(error, send, limits))?;
        let text = String::from_utf8_lossy(&output.stdout);
        parse::send_size(&text).map_err(|error| unparsable(op, &error))
    }

    pub(super) fn send_to(
        &self,
        op: &Op,
        send: &SendRequest,
        to: OwnedFd,
        limits: &Limits,
    ) -> Result<(), Error> {
        let command = self.send_command(op, send, limits)?.stdout(Stdout::Relay(to));
        run(op, command, limits).map_err(|error| self.send_error(error, send, limits))?;
        Ok(())
    }

    pub(super) fn receive_from(
        &self,
        op: &Op,
        receive: &ReceiveRequest,
        from: OwnedFd,
        limits: &Limits,
    ) -> Result<Received, Error> {
        let command = self.receive_command(op, receive)?.stdin(Stdin::Relay(from));
        let output = run(op, command, limits).map_err(|error| self.receive_error(error, receive, limits))?;
        self.arrived(op, receive, &output.stdout, limits)
    }

    pub(super) fn send_and_receive(
        &self,
        op: &Op,
        send: &SendRequest,
        receive: &ReceiveRequest,
        limits: &Limits,
    ) -> Result<Received, Error> {
        let producer = self.send_command(op, send, limits)?;
        let consumer = self.receive_command(op, receive)?;
        match pipeline(producer, consumer, limits) {
            Ok((_, received)) => self.arrived(op, receive, &received.stdout, limits),
            Err(error) => Err(self.blame(op, error, send, receive, limits)),
        }
    }

    /// The error of the side that is the cause: a receive that merely ran out of stream is not, and a send
    /// whose pipe was closed is not.
    fn blame(
        &self,
        op: &Op,
        error: PipelineError,
        send: &SendRequest,
        receive: &ReceiveRequest,
        limits: &Limits,
    ) -> Error {
        let PipelineError { side, error, other } = error;
        let (sent, received) = match side {
            cryopod_command::Side::Consumer => (other, Some(error)),
            cryopod_command::Side::Producer | cryopod_command::Side::Both => (Some(error), other),
        };
        let sent = sent.map(|error| self.send_error(from_command(op, *error), send, limits));
        let received = received.map(|error| self.receive_error(from_command(op, *error), receive, limits));
        match (sent, received) {
            (Some(sent), Some(received)) => {
                let ran_out = matches!(received, Error::StreamTruncated { .. } | Error::StreamCorrupt { .. });
                let known = !matches!(sent, Error::Unknown { .. });
                if sent.is_stopped() || (ran_out && known) { sent } else { received }
            }
            (Some(error), None) | (None, Some(error)) => error,
            (None, None) => Error::Unknown { op: op.clone(), said: "no side said why".to_owned() },
        }
    }

    fn send_command(&self, op: &Op, send: &SendRequest, limits: &Limits) -> Result<Command, Error> {
        Ok(self.command(Tool::Zfs).arg("send").args(self.send_args(op, send, limits)?))
    }

    fn send_args(&self, op: &Op, send: &SendRequest, limits: &Limits) -> Result<Vec<OsString>, Error> {
        let flags = [
            (send.flags.raw, "-w"),
            (send.flags.large_blocks, "-L"),
            (send.flags.compressed, "-c"),
            (send.flags.embedded, "-e"),
        ];
        let mut args: Vec<OsString> =
            flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| text(flag)).collect();
        match &send.stream {
            Stream::Full(to) => args.push(text(to)),
            Stream::Incremental { from, to } => args.extend([text("-i"), text(from), text(to)]),
            Stream::FromOrigin(to) => {
                args.extend([text("-i"), text(&self.origin(op, to, limits)?), text(to)]);
            }
            // The token has the flags of the first part in it.
            Stream::Resume(token) => args = vec![text("-t"), text(token)],
        }
        Ok(args)
    }

    fn origin(&self, op: &Op, snapshot: &SnapshotName, limits: &Limits) -> Result<SnapshotName, Error> {
        let dataset = text(&snapshot.dataset());
        let output =
            self.zfs(op, [text("get"), text("-Hpo"), text("value"), text("origin"), dataset], limits)?;
        let origin = parse::origin(&String::from_utf8_lossy(&output.stdout));
        origin.map_err(|error| unparsable(op, &error))?.ok_or_else(|| Error::NotAClone { op: op.clone() })
    }

    fn send_error(&self, error: Error, send: &SendRequest, limits: &Limits) -> Error {
        match (self.refine(error, limits), &send.stream) {
            (Error::NotFound { op, name }, Stream::Incremental { from: Base::Snapshot(from), .. })
                if name == from.as_str() =>
            {
                Error::BaseMissing { op, said: format!("{from} does not exist") }
            }
            (error, Stream::Full(snapshot) | Stream::FromOrigin(snapshot)) => {
                self.explain_snapshots(error, std::slice::from_ref(snapshot), limits)
            }
            (error, Stream::Incremental { from, to }) => {
                let base = if let Base::Snapshot(from) = from { Some(from.clone()) } else { None };
                let both: Vec<SnapshotName> = base.into_iter().chain([to.clone()]).collect();
                self.explain_snapshots(error, &both, limits)
            }
            (error, Stream::Resume(_)) => error,
        }
    }

    fn receive_command(&self, op: &Op, receive: &ReceiveRequest) -> Result<Command, Error> {
        checks::properties(op, &receive.set)?;
        let mut command = self.command(Tool::Zfs).args(["receive", "-v"]);
        if receive.resumable {
            command = command.arg("-s");
        }
        if receive.unmounted {
            command = command.arg("-u");
        }
        for key in &receive.exclude {
            checks::key(op, key)?;
            command = command.arg("-x").arg(key);
        }
        command = command.args(set_options(&receive.set));
        if let Some(origin) = &receive.origin {
            command = command.arg("-o").arg(format!("origin={origin}"));
        }
        Ok(command.arg(&receive.target))
    }

    fn receive_error(&self, error: Error, receive: &ReceiveRequest, limits: &Limits) -> Error {
        let error = self.refine(error, limits);
        match error {
            Error::Exists { op, name } => {
                // The tool says "exists" of a dataset that so far only holds an interrupted receive.
                let token =
                    self.dataset(&receive.target, limits).ok().flatten().and_then(|found| found.resume_token);
                if token.is_some() { Error::ResumeExists { op } } else { Error::Exists { op, name } }
            }
            error => self.explain(error, &receive.target, false, limits),
        }
    }

    /// What a receive that succeeded has made.
    fn arrived(
        &self,
        op: &Op,
        receive: &ReceiveRequest,
        said: &[u8],
        limits: &Limits,
    ) -> Result<Received, Error> {
        let said = String::from_utf8_lossy(said);
        if let Ok(snapshot) = parse::receive_name(&said)
            && let Some(found) = self.snapshot(&snapshot, limits)?
        {
            return Ok(Received { snapshot, guid: found.guid });
        }
        // A resumed receive need not name what it makes: it is the latest.
        let filter = Filter { depth: Some(1), ..Filter::below(&receive.target, Kinds::SNAPSHOTS) };
        let latest = self.list(&filter, limits)?.pop().and_then(Entry::into_snapshot);
        let why = || Error::Unparsable {
            op: op.clone(),
            why: "a receive succeeded and no snapshot is there".to_owned(),
        };
        latest.map(|found| Received { guid: Guid(found.guid.0), snapshot: found.name }).ok_or_else(why)
    }
}
