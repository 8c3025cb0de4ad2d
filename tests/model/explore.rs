//! Breadth first through all states that a model can come to.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::rc::Rc;
use std::time::Instant;

/// More states than this are too many for a test.
const MOST_STATES: usize = 3_000_000;

/// What may happen, one step at a time.
pub(crate) trait Model {
    type State: Clone + Eq + Hash;
    type Step: Copy + Debug;

    fn start(&self) -> Self::State;

    /// All that may happen next.
    fn steps(&self, state: &Self::State, to: &mut Vec<Self::Step>);

    fn take(&self, state: &mut Self::State, step: Self::Step);

    /// The promise that is broken in this state.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
}

/// A shortest way to a broken promise.
pub(crate) struct Trace {
    pub(crate) promise: &'static str,
    /// What happened, a line each.
    pub(crate) text: String,
    pub(crate) length: usize,
}

struct Node<M: Model> {
    state: Rc<M::State>,
    /// How it was come to; none for the first.
    by: Option<(usize, M::Step)>,
    depth: usize,
}

/// Goes through all states. `None`: no promise is broken in any of them.
pub(crate) fn explore<M: Model>(name: &str, model: &M) -> Option<Trace> {
    let began = Instant::now();
    let first = Rc::new(model.start());
    let mut seen: HashSet<Rc<M::State>, BuildHasherDefault<Mixer>> = HashSet::default();
    seen.insert(Rc::clone(&first));
    let mut nodes: Vec<Node<M>> = vec![Node { state: first, by: None, depth: 0 }];
    let (mut next, mut steps, mut transitions) = (0, Vec::new(), 0_usize);
    while next < nodes.len() {
        let (state, depth) = (Rc::clone(&nodes[next].state), nodes[next].depth);
        if let Some(promise) = model.broken(&state) {
            eprintln!("{name}: broken after {depth} steps, {} states, {:?}", nodes.len(), began.elapsed());
            return Some(trace(&nodes, next, promise));
        }
        steps.clear();
        model.steps(&state, &mut steps);
        for &step in &steps {
            transitions += 1;
            let mut state = M::State::clone(&state);
            model.take(&mut state, step);
            let state = Rc::new(state);
            if seen.insert(Rc::clone(&state)) {
                nodes.push(Node { state, by: Some((next, step)), depth: depth + 1 });
            }
        }
        assert!(nodes.len() <= MOST_STATES, "{name}: more than {MOST_STATES} states");
        next += 1;
    }
    let depth = nodes.last().map_or(0, |node| node.depth);
    let count = nodes.len();
    eprintln!("{name}: holds; {count} states, {transitions} steps, depth {depth}, {:?}", began.elapsed());
    None
}

/// # Panics
/// A promise is broken in some state.
pub(crate) fn holds<M: Model>(name: &str, model: &M) {
    if let Some(trace) = explore(name, model) {
        panic!("{name}: {} is broken by\n{}", trace.promise, trace.text);
    }
}

/// # Panics
/// This promise is not broken, or another one is sooner, or its shortest trace is of another length.
pub(crate) fn breaks<M: Model>(name: &str, model: &M, promise: &str, length: usize) {
    let Some(trace) = explore(name, model) else { panic!("{name}: breaks no promise") };
    eprintln!("{} is broken by\n{}", trace.promise, trace.text);
    let found = (trace.promise.split(':').next().unwrap_or_default(), trace.length);
    assert_eq!(found, (promise, length), "{name}: {} is broken by\n{}", trace.promise, trace.text);
}

fn trace<M: Model>(nodes: &[Node<M>], last: usize, promise: &'static str) -> Trace {
    let (mut lines, mut at) = (Vec::new(), last);
    while let Some((from, step)) = nodes[at].by {
        lines.push(format!("  {step:?}"));
        at = from;
    }
    lines.reverse();
    Trace { promise, text: lines.join("\n"), length: lines.len() }
}

/// A fast hash; states are compared as well.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number.unsigned_abs() as u64);
    }
}
