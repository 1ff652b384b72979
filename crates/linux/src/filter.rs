//! Programs of classic BPF (`<linux/filter.h>`, `Documentation/networking/filter.rst`), written with labels.

use nix::libc;

/// One step, as the kernel has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    /// What is done.
    pub(crate) code: u16,
    /// Steps that are left out if the comparison holds …
    pub(crate) yes: u8,
    /// … and if not.
    pub(crate) no: u8,
    /// The operand.
    pub(crate) k: u32,
}

/// A place in the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Label(usize);

/// The step that follows.
pub(crate) const NEXT: Label = Label(usize::MAX);

/// A program that is being written. Jumps go forward, and no further than 255 steps.
#[derive(Default)]
pub(crate) struct Program {
    steps: Vec<(u32, u32, Label, Label)>,
    places: Vec<usize>,
}

impl Program {
    /// A label, to be placed later.
    pub(crate) fn label(&mut self) -> Label {
        self.places.push(0);
        Label(self.places.len() - 1)
    }

    /// The next step is that label's.
    pub(crate) fn place(&mut self, label: Label) {
        self.places[label.0] = self.steps.len();
    }

    /// A step that is no jump.
    pub(crate) fn step(&mut self, code: u32, k: u32) {
        self.steps.push((code, k, NEXT, NEXT));
    }

    /// Loads so much (`BPF_B`, `BPF_H`, `BPF_W`) from there in the packet. A packet that is shorter is left.
    pub(crate) fn load(&mut self, size: u32, at: u32) {
        self.step(libc::BPF_LD | size | libc::BPF_ABS, at);
    }

    /// Compares what was loaded (`BPF_JEQ`, `BPF_JSET`).
    pub(crate) fn compare(&mut self, how: u32, k: u32, yes: Label, no: Label) {
        self.steps.push((libc::BPF_JMP | how | libc::BPF_K, k, yes, no));
    }

    /// Goes there if what was loaded is one of these.
    pub(crate) fn any(&mut self, values: &[u32], there: Label) {
        values.iter().for_each(|value| self.compare(libc::BPF_JEQ, *value, there, NEXT));
    }

    /// Goes there if these bytes, a multiple of four, stand at that place of the packet.
    pub(crate) fn bytes_at(&mut self, at: u32, bytes: &[u8], there: Label) {
        let other = self.label();
        let last = bytes.len() / 4;
        for (n, word) in (0u32..).zip(bytes.chunks_exact(4)) {
            self.load(libc::BPF_W, at + 4 * n);
            let word = word.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
            let yes = if n as usize + 1 == last { there } else { NEXT };
            self.compare(libc::BPF_JEQ, word, yes, other);
        }
        self.place(other);
    }

    /// The end: so many bytes of the packet are taken; 0: none.
    pub(crate) fn take(&mut self, bytes: u32) {
        self.step(libc::BPF_RET | libc::BPF_K, bytes);
    }

    /// The program; `None` where a jump is too long, or goes back.
    pub(crate) fn assemble(self) -> Option<Vec<Step>> {
        let Self { steps, places } = self;
        let offset = |at: usize, label: Label| {
            if label == NEXT {
                return Some(0);
            }
            u8::try_from(places[label.0].checked_sub(at + 1)?).ok()
        };
        let step = |(at, (code, k, yes, no)): (usize, (u32, u32, Label, Label))| {
            let code = u16::try_from(code).ok()?;
            Some(Step { code, yes: offset(at, yes)?, no: offset(at, no)?, k })
        };
        steps.into_iter().enumerate().map(step).collect()
    }
}
