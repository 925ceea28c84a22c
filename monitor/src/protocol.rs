//! liblxc's command protocol (lxc `src/lxc/commands.h`): a request of 16 bytes and a payload, a response of 16 bytes and a
//! payload, descriptors beside the response. Unchanged since LXC 1.0, but for new commands at the end.

/// Longest payload of a request (`LXC_CMD_DATA_MAX`).
pub(super) const LONGEST: usize = 8 << 10;

/// States of a container as liblxc numbers them (`lxc_state_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Its first process has ended.
    Stopped = 0,
    /// It runs.
    Running = 2,
    /// It is frozen.
    Frozen = 6,
}

/// `MAX_STATE`: how many there are, and the answer "not yet, you will hear".
pub(super) const STATES: usize = 8;

/// What is answered; others are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Stop,
    GetState,
    GetInitPid,
    GetCloneFlags,
    GetCgroup,
    GetConfigItem,
    GetName,
    GetPath,
    AddStateClient,
    ServeStateClients,
    Freeze,
    Unfreeze,
    GetCgroupDescriptor,
    GetInitPidDescriptor,
    GetCgroupContext,
}

impl Command {
    fn of(number: i32) -> Option<Self> {
        Some(match number {
            2 => Self::Stop,
            3 => Self::GetState,
            4 => Self::GetInitPid,
            5 => Self::GetCloneFlags,
            // The cgroup of the limits is the same as that of the processes.
            6 | 19 => Self::GetCgroup,
            7 => Self::GetConfigItem,
            8 => Self::GetName,
            9 => Self::GetPath,
            10 => Self::AddStateClient,
            12 => Self::ServeStateClients,
            15 => Self::Freeze,
            16 => Self::Unfreeze,
            17 | 20 => Self::GetCgroupDescriptor,
            18 => Self::GetInitPidDescriptor,
            23 => Self::GetCgroupContext,
            _ => return None,
        })
    }
}

/// A request, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// `None` for one that is not known here.
    pub(super) command: Option<Command>,
    /// Bytes that follow.
    pub(super) payload: usize,
    /// A number, where the command takes one.
    pub(super) number: u64,
}

/// `int cmd; int datalen; const void *data`.
pub(super) const HEADER: usize = 16;

impl Request {
    /// `None` for one that liblxc would not send.
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let [c0, c1, c2, c3, l0, l1, l2, l3, number @ ..] = *bytes;
        let payload = usize::try_from(i32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let command = Command::of(i32::from_ne_bytes([c0, c1, c2, c3]));
        (payload <= LONGEST).then(|| Self { command, payload, number: u64::from_ne_bytes(number) })
    }
}

/// `int ret; int datalen; void *data`.
pub(super) fn response(code: i32, payload: usize, number: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    let length = i32::try_from(payload).unwrap_or(i32::MAX);
    let parts = code.to_ne_bytes().into_iter().chain(length.to_ne_bytes()).chain(number.to_ne_bytes());
    for (byte, part) in bytes.iter_mut().zip(parts) {
        *byte = part;
    }
    bytes
}

/// `struct lxc_msg` of a change of state: type, name of `NAME_MAX` + 1 bytes, value.
pub(super) fn change(name: &str, state: State) -> Vec<u8> {
    const TYPE_STATE: i32 = 0;
    const NAME: usize = 256;
    let mut message = TYPE_STATE.to_ne_bytes().to_vec();
    message.extend(name.bytes().chain(std::iter::repeat(0)).take(NAME - 1));
    message.push(0);
    message.extend(i32::from(state as u8).to_ne_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_lxc_info() {
        let bytes: Vec<u8> = [3_i32.to_ne_bytes(), 0_i32.to_ne_bytes()].concat();
        let mut request = [0; HEADER];
        request[..8].copy_from_slice(&bytes);
        let parsed = Request::parse(&request).unwrap();
        assert_eq!((parsed.command, parsed.payload), (Some(Command::GetState), 0));
    }

    #[test]
    fn lengths_are_not_believed() {
        for length in [-1, i32::MAX] {
            let mut request = [0; HEADER];
            request[4..8].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Request::parse(&request), None);
        }
    }

    #[test]
    fn a_message_has_the_size_of_liblxcs() {
        assert_eq!(change("c", State::Stopped).len(), 4 + 256 + 4);
        assert_eq!(change(&"x".repeat(400), State::Frozen).len(), 264);
    }
}
