//! Which devices a container may use: the rules of the spec as a program of the kernel (BPF_PROG_TYPE_CGROUP_DEVICE), since
//! cgroup v2 has no file for them. One way for new and for restored containers, with the meaning that runc gives the rules:
//! the last one that matches decides, nothing is allowed that no rule allows, and the default devices always are.

use std::io;
use std::path::Path;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::refusal::Refusal;
use crate::sys::bpf;

/// Bits of an access (linux/bpf.h, `BPF_DEVCG_ACC_*`).
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL: u32 = MKNOD | READ | WRITE;

/// `BPF_DEVCG_DEV_*`.
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

/// One rule; `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    allow: bool,
    kind: Option<u32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

/// Devices that every container has (OCI runtime spec, "Default Devices"; runc `AllowedDevices`): nodes of any kind may be
/// made, not opened.
const DEFAULTS: [(u32, Option<u32>, Option<u32>, u32); 10] = [
    (CHARACTER, None, None, MKNOD),
    (BLOCK, None, None, MKNOD),
    (CHARACTER, Some(1), Some(3), ALL),
    (CHARACTER, Some(1), Some(5), ALL),
    (CHARACTER, Some(1), Some(7), ALL),
    (CHARACTER, Some(1), Some(8), ALL),
    (CHARACTER, Some(1), Some(9), ALL),
    (CHARACTER, Some(5), Some(0), ALL),
    // ptmx, and the terminals that it makes.
    (CHARACTER, Some(5), Some(2), ALL),
    (CHARACTER, Some(136), None, ALL),
];

/// The rules of a spec, with the default ones.
///
/// # Errors
/// For one that the kernel cannot express.
pub fn rules(wanted: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>, Refusal> {
    let defaults = DEFAULTS.iter().map(|&(kind, major, minor, access)| {
        Ok(Rule { allow: true, kind: Some(kind), major, minor, access })
    });
    wanted.iter().enumerate().map(|(index, wanted)| rule(index, wanted)).chain(defaults).collect()
}

fn rule(index: usize, wanted: &LinuxDeviceCgroup) -> Result<Rule, Refusal> {
    let field = |name: &str| format!("linux.resources.devices[{index}].{name}");
    let kind = match wanted.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::A => None,
        LinuxDeviceType::B => Some(BLOCK),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(CHARACTER),
        LinuxDeviceType::P => return Err(Refusal::of(field("type"), "is \"p\", and fifos have no rules")),
    };
    let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let mut access = 0;
    for letter in wanted.access().as_deref().unwrap_or("rwm").chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => return Err(Refusal::of(field("access"), format!("has {letter:?}; r, w and m are known"))),
        };
    }
    let (major, minor) =
        if kind.is_none() { (None, None) } else { (number(wanted.major()), number(wanted.minor())) };
    Ok(Rule { allow: wanted.allow(), kind, major, minor, access })
}

/// Rules in the kernel.
#[derive(Debug)]
pub struct Filter(bpf::DeviceFilter);

/// Hands them to the kernel, which looks at them for some milliseconds.
///
/// # Errors
/// What the kernel says.
pub fn load(rules: &[Rule]) -> io::Result<Filter> {
    bpf::DeviceFilter::load(&program(rules)).map(Filter)
}

impl Filter {
    /// Lets them hold for a cgroup and everything below, in the place of others.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn attach(&self, cgroup: &Path) -> io::Result<()> {
        self.0.attach(cgroup)
    }
}

/// Codes of instructions (Linux, Documentation/bpf/standardization/instruction-set.rst).
mod code {
    pub(super) const LOAD_WORD: u8 = 0x61;
    pub(super) const AND: u8 = 0x54;
    pub(super) const SHIFT_RIGHT: u8 = 0x74;
    pub(super) const COPY: u8 = 0xbf;
    pub(super) const SET: u8 = 0xb7;
    pub(super) const JUMP_UNLESS: u8 = 0x55;
    pub(super) const JUMP_IF: u8 = 0x15;
    pub(super) const JUMP_UNLESS_SAME: u8 = 0x5d;
    pub(super) const EXIT: u8 = 0x95;
}

/// Registers: the answer, the request, and what was read of it.
const ANSWER: u8 = 0;
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// An instruction as the kernel has it: code, registers (target in the low half), offset, operand.
fn instruction(code: u8, target: u8, source: u8, offset: i16, operand: u32) -> u64 {
    let [o0, o1] = offset.to_ne_bytes();
    let [v0, v1, v2, v3] = operand.to_ne_bytes();
    u64::from_ne_bytes([code, source << 4 | target, o0, o1, v0, v1, v2, v3])
}

/// The program: the last rule first.
fn program(rules: &[Rule]) -> Vec<u64> {
    // struct bpf_cgroup_dev_ctx: access above 16 bits of kind, major, minor.
    let mut program = vec![
        instruction(code::LOAD_WORD, KIND, SCRATCH, 0, 0),
        instruction(code::AND, KIND, 0, 0, 0xffff),
        instruction(code::LOAD_WORD, ACCESS, SCRATCH, 0, 0),
        instruction(code::SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(code::LOAD_WORD, MAJOR, SCRATCH, 4, 0),
        instruction(code::LOAD_WORD, MINOR, SCRATCH, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(steps(rule));
        // The kernel refuses a program with instructions that are never reached.
        if *rule == (Rule { allow: rule.allow, kind: None, major: None, minor: None, access: ALL }) {
            return program;
        }
    }
    program.extend(answer(false));
    program
}

fn answer(allow: bool) -> [u64; 2] {
    [instruction(code::SET, ANSWER, 0, 0, allow.into()), instruction(code::EXIT, 0, 0, 0, 0)]
}

/// Tests that jump behind the rule's answer, and the answer.
fn steps(rule: &Rule) -> Vec<u64> {
    let mut tests: Vec<(u8, u8, u8, u32)> = Vec::new();
    for (register, wanted) in [(KIND, rule.kind), (MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(wanted) = wanted {
            tests.push((code::JUMP_UNLESS, register, 0, wanted));
        }
    }
    if rule.access != ALL {
        tests.push((code::COPY, SCRATCH, ACCESS, 0));
        tests.push((code::AND, SCRATCH, 0, rule.access));
        // Allowed is a request all of which is allowed; denied one of which something is denied.
        tests.push(if rule.allow {
            (code::JUMP_UNLESS_SAME, SCRATCH, ACCESS, 0)
        } else {
            (code::JUMP_IF, SCRATCH, 0, 0)
        });
    }
    let count = tests.len();
    let mut steps = Vec::with_capacity(count + 2);
    for (index, (code, target, source, operand)) in tests.into_iter().enumerate() {
        let jumps = matches!(code, code::JUMP_UNLESS | code::JUMP_IF | code::JUMP_UNLESS_SAME);
        let behind = if jumps { i16::try_from(count - index - 1 + 2).unwrap_or(i16::MAX) } else { 0 };
        steps.push(instruction(code, target, source, behind, operand));
    }
    steps.extend(answer(rule.allow));
    steps
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What the kernel does with a program of ours.
    fn run(program: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0_u32; 6];
        let mut at = 0_i32;
        loop {
            let [code, pair, o0, o1, v @ ..] = program[usize::try_from(at).unwrap()].to_ne_bytes();
            let (target, source) = (usize::from(pair & 15), usize::from(pair >> 4));
            let (offset, operand) = (i16::from_ne_bytes([o0, o1]), u32::from_ne_bytes(v));
            let mut jump = false;
            match code {
                code::LOAD_WORD => registers[target] = context[usize::try_from(offset).unwrap() / 4],
                code::AND => registers[target] &= operand,
                code::SHIFT_RIGHT => registers[target] >>= operand,
                code::COPY => registers[target] = registers[source],
                code::SET => registers[target] = operand,
                code::JUMP_UNLESS => jump = registers[target] != operand,
                code::JUMP_IF => jump = registers[target] == operand,
                code::JUMP_UNLESS_SAME => jump = registers[target] != registers[source],
                code::EXIT => return registers[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
            at += 1 + if jump { i32::from(offset) } else { 0 };
        }
    }

    fn of(rules: Value) -> Vec<u64> {
        let wanted: Vec<LinuxDeviceCgroup> = serde_json::from_value(rules).unwrap();
        program(&self::rules(&wanted).unwrap())
    }

    #[test]
    fn a_pods_container_has_its_default_devices_and_what_it_was_given() {
        let program = of(json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" },
            { "allow": true, "type": "b", "major": 8, "access": "r" }
        ]));
        for (kind, access, major, minor, allowed) in [
            (CHARACTER, READ | WRITE, 1, 3, true),
            (CHARACTER, READ | WRITE, 136, 7, true),
            (CHARACTER, READ, 10, 229, true),
            (CHARACTER, READ | MKNOD, 10, 229, false),
            (CHARACTER, READ, 10, 200, false),
            (BLOCK, READ, 8, 17, true),
            (BLOCK, READ | WRITE, 8, 17, false),
            (BLOCK, MKNOD, 9, 0, true),
            (BLOCK, READ, 1, 3, false),
            (CHARACTER, READ, 1, 1, false),
        ] {
            assert_eq!(run(&program, kind, access, major, minor), allowed, "{kind} {major}:{minor} {access}");
        }
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let program = of(json!([
            { "allow": true },
            { "allow": false, "type": "b", "major": 8, "access": "w" }
        ]));
        assert!(run(&program, CHARACTER, READ, 10, 1));
        assert!(run(&program, BLOCK, READ, 8, 0));
        assert!(!run(&program, BLOCK, READ | WRITE, 8, 0));
        assert!(run(&program, BLOCK, WRITE, 9, 0));
    }

    #[test]
    fn nothing_stands_behind_a_rule_for_everything() {
        let ends =
            |program: &[u64]| program.iter().filter(|step| **step & 0xff == u64::from(code::EXIT)).count();
        let before = of(json!([]));
        let program =
            of(json!([{ "allow": true, "type": "c" }, { "allow": false }, { "allow": true, "major": 9 }]));
        assert_eq!(ends(&program), ends(&before), "{program:x?}");
    }

    #[test]
    fn without_rules_there_are_the_default_devices() {
        let program = of(json!([]));
        assert!(run(&program, CHARACTER, READ, 1, 9) && !run(&program, BLOCK, READ, 8, 0));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for (rule, field) in [
            (json!({ "allow": true, "type": "p" }), "linux.resources.devices[0].type"),
            (json!({ "allow": true, "access": "x" }), "linux.resources.devices[0].access"),
        ] {
            let wanted: Vec<LinuxDeviceCgroup> = serde_json::from_value(json!([rule])).unwrap();
            assert_eq!(rules(&wanted).unwrap_err().field, field);
        }
    }
}
