//! CRIU's requests and answers (criu `images/rpc.proto`, as far as they are used): protobuf, one message a datagram.

use protobuf::{CodedInputStream, CodedOutputStream};

/// `criu_req_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
}

/// `criu_cg_mode`: groups that are there keep their settings.
const SOFT: i32 = 3;

/// `criu_opts`, field by field, in the order in which they are set.
#[derive(Debug, Default)]
pub(super) struct Options(Vec<Field>);

#[derive(Debug)]
enum Field {
    Number(u32, i32),
    Flag(u32),
    Text(u32, String),
    Nested(u32, Vec<Field>),
}

impl Options {
    /// Descriptors of ours for images and work, and the log's name.
    pub(super) fn new(images: i32, work: i32, log: &str) -> Self {
        const LOG_LEVEL: i32 = 4;
        Self(vec![
            Field::Number(1, images),
            Field::Number(9, LOG_LEVEL),
            Field::Text(10, log.to_owned()),
            Field::Number(17, work),
            Field::Number(34, SOFT),
        ])
    }

    pub(super) fn pid(&mut self, pid: u32) {
        self.0.push(Field::Number(2, i32::try_from(pid).unwrap_or_default()));
    }

    fn flag(&mut self, number: u32, given: bool) {
        if given {
            self.0.push(Field::Flag(number));
        }
    }

    pub(super) fn leave_running(&mut self, given: bool) {
        self.flag(3, given);
    }

    pub(super) fn external_sockets(&mut self, given: bool) {
        self.flag(4, given);
    }

    pub(super) fn tcp_established(&mut self, given: bool) {
        self.flag(5, given);
    }

    pub(super) fn shell_job(&mut self, given: bool) {
        self.flag(7, given);
    }

    pub(super) fn file_locks(&mut self, given: bool) {
        self.flag(8, given);
    }

    pub(super) fn notify(&mut self, given: bool) {
        self.flag(12, given);
    }

    pub(super) fn track_memory(&mut self, given: bool) {
        self.flag(15, given);
    }

    pub(super) fn sibling(&mut self) {
        self.flag(26, true);
    }

    /// Terminals whose master is outside.
    pub(super) fn orphan_terminals(&mut self, given: bool) {
        self.flag(50, given);
    }

    fn text(&mut self, number: u32, text: String) {
        self.0.push(Field::Text(number, text));
    }

    pub(super) fn root(&mut self, path: String) {
        self.text(13, path);
    }

    pub(super) fn parent(&mut self, path: String) {
        self.text(14, path);
    }

    pub(super) fn external(&mut self, what: String) {
        self.text(37, what);
    }

    pub(super) fn freeze_cgroup(&mut self, path: String) {
        self.text(44, path);
    }

    pub(super) fn cgroup_root(&mut self, path: String) {
        self.0.push(Field::Nested(25, vec![Field::Text(2, path)]));
    }

    pub(super) fn inherit(&mut self, key: String, fd: i32) {
        self.0.push(Field::Nested(27, vec![Field::Text(1, key), Field::Number(2, fd)]));
    }

    pub(super) fn join(&mut self, kind: &str, path: String) {
        self.0.push(Field::Nested(39, vec![Field::Text(1, kind.to_owned()), Field::Text(2, path)]));
    }
}

#[cfg(test)]
impl Options {
    /// Numbers of fields with their values, for tests.
    pub(super) fn shown(&self) -> Vec<(u32, String)> {
        fn value(field: &Field) -> (u32, String) {
            match field {
                Field::Number(number, value) => (*number, value.to_string()),
                Field::Flag(number) => (*number, true.to_string()),
                Field::Text(number, text) => (*number, text.clone()),
                Field::Nested(number, fields) => {
                    let inner: Vec<String> =
                        fields.iter().map(value).map(|(number, value)| format!("{number}={value}")).collect();
                    (*number, inner.join(" "))
                }
            }
        }
        self.0.iter().map(value).collect()
    }
}

fn encoded(fields: &[Field]) -> protobuf::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut out = CodedOutputStream::vec(&mut bytes);
    for field in fields {
        match field {
            Field::Number(number, value) => out.write_int32(*number, *value)?,
            Field::Flag(number) => out.write_bool(*number, true)?,
            Field::Text(number, text) => out.write_string(*number, text)?,
            Field::Nested(number, fields) => out.write_bytes(*number, &encoded(fields)?)?,
        }
    }
    out.flush()?;
    drop(out);
    Ok(bytes)
}

/// `criu_req`.
pub(super) fn request(kind: Kind, options: Options) -> protobuf::Result<Vec<u8>> {
    encoded(&[Field::Number(1, kind as i32), Field::Nested(2, options.0)])
}

/// The answer to a notification: go on.
pub(super) fn go_on() -> protobuf::Result<Vec<u8>> {
    encoded(&[Field::Number(1, Kind::Notify as i32), Field::Flag(3)])
}

/// `criu_resp`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Response {
    /// `criu_req_type`.
    pub(super) kind: i32,
    pub(super) success: bool,
    /// Of a restored first process.
    pub(super) pid: Option<u32>,
    /// Stage of a notification.
    pub(super) script: String,
    /// What went wrong, if CRIU says so.
    pub(super) error: String,
}

impl Response {
    pub(super) fn parse(bytes: &[u8]) -> protobuf::Result<Self> {
        let mut response = Self::default();
        let mut input = CodedInputStream::from_bytes(bytes);
        while let Some(tag) = input.read_raw_tag_or_eof()? {
            match tag >> 3 {
                1 => response.kind = input.read_int32()?,
                2 => response.success = input.read_bool()?,
                4 => response.pid = number(&input.read_bytes()?)?,
                5 => response.script = text(&input.read_bytes()?)?,
                9 => response.error = input.read_string()?,
                _ => skip(&mut input, tag)?,
            }
        }
        Ok(response)
    }
}

/// Field 1 of `criu_restore_resp`.
fn number(bytes: &[u8]) -> protobuf::Result<Option<u32>> {
    let mut input = CodedInputStream::from_bytes(bytes);
    let mut found = None;
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        match tag >> 3 {
            1 => found = u32::try_from(input.read_int32()?).ok().filter(|pid| *pid > 0),
            _ => skip(&mut input, tag)?,
        }
    }
    Ok(found)
}

/// Field 1 of `criu_notify`.
fn text(bytes: &[u8]) -> protobuf::Result<String> {
    let mut input = CodedInputStream::from_bytes(bytes);
    let mut found = String::new();
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        match tag >> 3 {
            1 => found = input.read_string()?,
            _ => skip(&mut input, tag)?,
        }
    }
    Ok(found)
}

/// A field that a newer CRIU has.
fn skip(input: &mut CodedInputStream<'_>, tag: u32) -> protobuf::Result<()> {
    // Wire types of protobuf's encoding.
    match tag & 7 {
        0 => input.read_raw_varint64().map(drop),
        1 => input.read_fixed64().map(drop),
        2 => input.read_bytes().map(drop),
        _ => input.read_fixed32().map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_the_description_says() {
        let mut options = Options::new(5, 6, "d.log");
        options.pid(300);
        options.orphan_terminals(true);
        options.leave_running(false);
        options.inherit("k".to_owned(), 9);
        let bytes = request(Kind::Restore, options).unwrap();
        let expected: &[&[u8]] = &[
            &[0x08, 2, 0x12, 0x23],
            &[0x08, 5, 0x48, 4, 0x52, 5],
            b"d.log",
            &[0x88, 1, 6, 0x90, 2, 3],
            &[0x10, 0xac, 2],
            &[0x90, 3, 1],
            &[0xda, 1, 5, 0x0a, 1, b'k', 0x10, 9],
        ];
        let expected = expected.concat();
        assert_eq!(bytes.get(4..), expected.get(4..), "{bytes:x?}");
        assert_eq!(bytes.len() - 4, usize::from(bytes[3]), "{bytes:x?}");
        assert_eq!(go_on().unwrap(), [0x08, 6, 0x18, 1]);
    }

    #[test]
    fn answers_are_read_and_what_is_new_in_them_is_passed_over() {
        let restored = [0x08, 2, 0x10, 1, 0x22, 2, 0x08, 77, 0x52, 2, 8, 4, 0x58, 1];
        let response = Response::parse(&restored).unwrap();
        assert_eq!((response.kind, response.success, response.pid), (2, true, Some(77)));
        let notified = [0x08, 6, 0x10, 1, 0x2a, 4, 0x0a, 2, b'o', b'k'];
        assert_eq!(Response::parse(&notified).unwrap().script, "ok");
        let failed = [0x08, 1, 0x10, 0, 0x38, 17, 0x4a, 2, b'n', b'o'];
        let response = Response::parse(&failed).unwrap();
        assert_eq!((response.success, response.error.as_str()), (false, "no"));
        assert!(Response::parse(&[0x22, 200]).is_err());
    }
}
