//! Follows all pointers of a plan through a body in one pass.
//!
//! Pure. In: pointers, once; a body, per request. Out: per *group* of pointers, the keys that they found. The pointers are
//! compiled into a tree of segments; the body is walked along that tree, and all beside it is skipped unseen but checked.
//!
//! A group is the pointers of one list that share everything up to their last `*`. They are alternatives: in each member
//! that the `*` stands for, the first that finds a key counts. Pointers without `*` are alternatives in the body as a whole.
//! What groups mean for an entry is left to [`Plan`](super::Plan).

use std::borrow::Cow;

use super::json::{Cursor, DEPTH_LIMIT, Quoted, Torn};
use super::keying::Keying;
use super::pointer::{Pointer, SEGMENT_LIMIT, Segment};
use super::subjects::{Found, Nobody};

/// The most pointers one plan may have.
pub(super) const POINTER_LIMIT: usize = 64;

/// The most places a plan's tree may have. Only pointers that mix `*` and numbers at the same depth can multiply so far.
pub(super) const NODE_LIMIT: usize = 4096;

/// More groups than this cost one allocation per body.
const GROUPS_IN_PLACE: usize = 4;

/// Compiled pointers.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    root: Node,
    /// By group.
    keyings: Box<[Keying]>,
}

/// A place in a body, as far as pointers tell places apart.
#[derive(Clone, Debug, Default)]
struct Node {
    /// What an object's members lead to. Fewer than [`POINTER_LIMIT`].
    members: Box<[(Box<str>, Node)]>,
    /// What an array's members lead to; those that a number names too are in `numbered` instead.
    each: Option<Box<Node>>,
    numbered: Box<[(usize, Node)]>,
    /// Pointers that end here.
    ends: Box<[End]>,
    /// Groups of which one member ends with this value: their pointers have had their chance in it.
    closes: Box<[usize]>,
    /// Groups with a pointer that passes through or ends here.
    groups: Box<[usize]>,
}

/// The end of a pointer: its group, and its rank among the alternatives (0 is asked first).
#[derive(Clone, Copy, Debug)]
struct End {
    group: usize,
    rank: usize,
}

/// Collects pointers for a [`Tree`].
#[derive(Default)]
pub(super) struct Builder<'p> {
    lines: Vec<Line<'p>>,
    keyings: Vec<Keying>,
}

/// One pointer on its way into the tree.
struct Line<'p> {
    pointer: &'p Pointer,
    end: End,
}

impl<'p> Builder<'p> {
    /// Adds a list of pointers. The numbers of its groups, in the order in which the list names them, are returned.
    pub(super) fn list(&mut self, pointers: &'p [Pointer], keying: &Keying) -> std::ops::Range<usize> {
        let first = self.keyings.len();
        let mut scopes: Vec<(&[Segment], usize)> = Vec::new();
        for pointer in pointers {
            let known = scopes.iter().position(|(scope, _)| *scope == pointer.scope());
            let index = known.unwrap_or(scopes.len());
            if known.is_none() {
                scopes.push((pointer.scope(), 0));
                self.keyings.push(keying.clone());
            }
            if let Some((_, members)) = scopes.get_mut(index) {
                self.lines.push(Line {
                    pointer,
                    end: End {
                        group: first + index,
                        rank: *members,
                    },
                });
                *members += 1;
            }
        }
        first..self.keyings.len()
    }

    /// How many pointers there are.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The tree of all pointers; `None` if it were larger than [`NODE_LIMIT`].
    pub(super) fn build(self) -> Option<Tree> {
        let mut budget = NODE_LIMIT;
        let root = node(&self.lines.iter().collect::<Vec<_>>(), 0, &mut budget)?;
        Some(Tree {
            root,
            keyings: self.keyings.into(),
        })
    }
}

/// The place to which these pointers lead with their first `depth` segments.
fn node(lines: &[&Line<'_>], depth: usize, budget: &mut usize) -> Option<Node> {
    *budget = budget.checked_sub(1)?;
    let (mut names, mut numbers) = (Vec::new(), Vec::new());
    let (mut ends, mut closes, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        add_once(&mut groups, line.end.group);
        if line.pointer.scope().len() == depth {
            add_once(&mut closes, line.end.group);
        }
        match line.pointer.segments().get(depth) {
            None => ends.push(line.end),
            Some(Segment::Each) => {}
            Some(segment @ Segment::Name(name)) => {
                add_once(&mut names, name);
                segment
                    .index()
                    .into_iter()
                    .for_each(|index| add_once(&mut numbers, index));
            }
        }
    }

    let mut beneath = |leads: &dyn Fn(&Segment) -> bool| {
        let passes = |line: &&&Line<'_>| line.pointer.segments().get(depth).is_some_and(leads);
        let further: Vec<_> = lines.iter().filter(passes).copied().collect();
        node(&further, depth + 1, budget)
    };
    let mut members = Vec::with_capacity(names.len());
    for name in names {
        let child = beneath(&|segment| matches!(segment, Segment::Name(own) if own == name))?;
        members.push((name.clone(), child));
    }
    let mut numbered = Vec::with_capacity(numbers.len());
    for index in numbers {
        // A member that is named by its number is also one of "every member".
        numbered.push((
            index,
            beneath(&|segment| *segment == Segment::Each || segment.index() == Some(index))?,
        ));
    }
    let stars = lines
        .iter()
        .any(|line| line.pointer.segments().get(depth) == Some(&Segment::Each));
    let each = if stars {
        Some(Box::new(beneath(&|segment| *segment == Segment::Each)?))
    } else {
        None
    };
    Some(Node {
        members: members.into(),
        each,
        numbered: numbered.into(),
        ends: ends.into(),
        closes: closes.into(),
        groups: groups.into(),
    })
}

fn add_once<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

impl Node {
    fn member(&self, cursor: &Cursor<'_>, name: Quoted) -> Option<(usize, &Node)> {
        let index = self.members.iter().position(|(own, _)| cursor.says(name, own))?;
        self.members.get(index).map(|(_, node)| (index, node))
    }

    fn element(&self, index: usize) -> Option<&Node> {
        let numbered = self
            .numbered
            .iter()
            .find(|(own, _)| *own == index)
            .map(|(_, node)| node);
        numbered.or(self.each.as_deref())
    }
}

/// What one group has found so far.
#[derive(Default)]
struct Lane<'a> {
    /// The best alternative in the member that is being read.
    best: Option<(usize, Cow<'a, str>)>,
    /// An alternative in it had a value that the table does not know.
    missed: bool,
    found: Found<'a>,
}

/// What every group found in one body.
#[derive(Default)]
pub(super) struct Lanes<'a> {
    in_place: [Lane<'a>; GROUPS_IN_PLACE],
    further: Vec<Lane<'a>>,
}

impl<'a> Lanes<'a> {
    fn lane(&mut self, group: usize) -> Option<&mut Lane<'a>> {
        match group.checked_sub(GROUPS_IN_PLACE) {
            None => self.in_place.get_mut(group),
            Some(further) => self.further.get_mut(further),
        }
    }

    /// What a group found. The second call for the same group finds nothing.
    pub(super) fn take(&mut self, group: usize) -> Found<'a> {
        self.lane(group)
            .map(|lane| std::mem::take(&mut lane.found))
            .unwrap_or_default()
    }

    fn offer(&mut self, end: End, key: Cow<'a, str>) {
        let Some(lane) = self.lane(end.group) else { return };
        if !key.is_empty() && lane.best.as_ref().is_none_or(|(rank, _)| end.rank < *rank) {
            lane.best = Some((end.rank, key));
        }
    }

    fn miss(&mut self, group: usize) {
        if let Some(lane) = self.lane(group) {
            lane.missed = true;
        }
    }

    fn close(&mut self, group: usize) {
        let Some(lane) = self.lane(group) else { return };
        let missed = std::mem::take(&mut lane.missed);
        match lane.best.take() {
            Some((_, key)) => lane.found.push(key),
            None if missed => lane.found.raise(Nobody::NotMapped),
            None => {}
        }
    }

    fn raise(&mut self, group: usize, doubt: Nobody) {
        if let Some(lane) = self.lane(group) {
            lane.found.raise(doubt);
        }
    }
}

impl Tree {
    /// Reads a body into lanes that are empty yet. A UTF-8 byte order mark is ignored, as RFC 8259 allows; a body of nothing but white space names nobody.
    ///
    /// # Errors
    /// [`Torn`] if the body is not UTF-8, not one whole JSON text, too deep, or if a key is half of a surrogate pair.
    pub(super) fn scan<'a>(&self, body: &'a [u8], lanes: &mut Lanes<'a>) -> Result<(), Torn> {
        let text = std::str::from_utf8(body).map_err(|_| Torn)?;
        let cursor = Cursor::new(text.strip_prefix('\u{feff}').unwrap_or(text));
        lanes
            .further
            .resize_with(self.keyings.len().saturating_sub(GROUPS_IN_PLACE), Lane::default);
        let mut walk = Walk {
            cursor,
            lanes,
            keyings: &self.keyings,
        };
        if !walk.cursor.is_done() {
            walk.value(&self.root, 0)?;
        }
        if walk.cursor.is_done() { Ok(()) } else { Err(Torn) }
    }
}

// A walk recurses once per segment and checks no depth of its own.
const _: () = assert!(SEGMENT_LIMIT < DEPTH_LIMIT as usize);

/// One pass over one body. Its methods recurse along the tree alone, so no deeper than a pointer has segments.
struct Walk<'a, 'w> {
    cursor: Cursor<'a>,
    lanes: &'w mut Lanes<'a>,
    keyings: &'w [Keying],
}

impl<'a> Walk<'a, '_> {
    fn value(&mut self, node: &Node, depth: u32) -> Result<(), Torn> {
        match self.cursor.peek() {
            b'{' if !node.members.is_empty() => self.object(node, depth)?,
            b'[' if node.each.is_some() || !node.numbered.is_empty() => self.array(node, depth)?,
            b'"' if !node.ends.is_empty() => {
                let string = self.cursor.string()?;
                let text = self.cursor.said(string)?;
                self.found(node, text);
            }
            b'-' | b'0'..=b'9' if !node.ends.is_empty() => {
                let text = self.cursor.number()?;
                self.found(node, Cow::Borrowed(text));
            }
            _ => self.cursor.skip(depth)?,
        }
        node.closes.iter().for_each(|group| self.lanes.close(*group));
        Ok(())
    }

    fn object(&mut self, node: &Node, depth: u32) -> Result<(), Torn> {
        if !self.cursor.take(b'{') {
            return Err(Torn);
        }
        if self.cursor.take(b'}') {
            return Ok(());
        }
        let mut seen: u64 = 0;
        loop {
            let name = self.cursor.name()?;
            match node.member(&self.cursor, name) {
                None => self.cursor.skip(depth + 1)?,
                Some((index, child)) => {
                    let bit = 1_u64 << (index % POINTER_LIMIT);
                    if seen & bit == 0 {
                        seen |= bit;
                        self.value(child, depth + 1)?;
                    } else {
                        // One parser keeps the first of two members of a name, another the last. Equal ones are doubtful
                        // too: to find out that they are would take keeping the first.
                        child
                            .groups
                            .iter()
                            .for_each(|group| self.lanes.raise(*group, Nobody::Ambiguous));
                        self.cursor.skip(depth + 1)?;
                    }
                }
            }
            if !self.cursor.take(b',') {
                return if self.cursor.take(b'}') { Ok(()) } else { Err(Torn) };
            }
        }
    }

    fn array(&mut self, node: &Node, depth: u32) -> Result<(), Torn> {
        if !self.cursor.take(b'[') {
            return Err(Torn);
        }
        if self.cursor.take(b']') {
            return Ok(());
        }
        for index in 0.. {
            match node.element(index) {
                Some(child) => self.value(child, depth + 1)?,
                None => self.cursor.skip(depth + 1)?,
            }
            if !self.cursor.take(b',') {
                break;
            }
        }
        if self.cursor.take(b']') { Ok(()) } else { Err(Torn) }
    }

    fn found(&mut self, node: &Node, text: Cow<'a, str>) {
        for end in &node.ends {
            let key = match self.keyings.get(end.group) {
                Some(keying) => keying.apply(text.clone()),
                None => Some(text.clone()),
            };
            match key {
                Some(key) => self.lanes.offer(*end, key),
                None => self.lanes.miss(end.group),
            }
        }
    }
}
