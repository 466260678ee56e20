//! The modules of a source tree and what each of them names.
//!
//! Pure: file names and texts in, resolved references out. Follows `use` groups, renames, re-exports and globs, and
//! paths in expressions, types, macros and in texts such as `#[serde(with = "crate::x")]`. What it cannot follow it
//! reports ([`Tree::oddities`]) instead of passing it over.

use std::collections::{BTreeMap, BTreeSet};

use crate::lex::{self, Kind, Token};

/// A module's place: the names from the crate root down; empty for the root itself.
pub type Place = Vec<String>;

/// How far a chain of re-exports is followed; more is a ring, which the compiler refuses.
const CHAIN_LIMIT: usize = 16;

/// One place in a file that names something.
#[derive(Clone, Debug)]
pub struct Reference {
    /// The module it stands in.
    pub from: Place,
    pub file: String,
    pub line: usize,
    pub to: Target,
}

/// What a reference leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Another crate's path, its name first; `*` at the end of a glob.
    External(Vec<String>),
    /// Something of ours: the module that owns it, and whether an item inside it is meant rather than the module.
    Ours { module: Place, item: Option<String> },
}

/// A file that is not test code.
#[derive(Debug)]
pub struct File {
    pub name: String,
    pub module: Place,
    pub text: String,
    /// Lines outside test code.
    pub lines: usize,
    /// The names that appear in `derive(...)` or are implemented, each with its line.
    pub traits: Vec<(String, usize)>,
    /// The names of called macros, each with its line.
    pub macros: Vec<(String, usize)>,
}

#[derive(Clone, Debug)]
struct Named {
    scope: Place,
    file: String,
    line: usize,
    segments: Vec<String>,
    /// Written with a leading `::`, so certainly another crate's.
    global: bool,
    /// The name that a `use` gives it here.
    alias: Option<String>,
}

#[derive(Debug, Default)]
struct Scope {
    children: BTreeSet<String>,
    aliases: BTreeMap<String, Named>,
    globs: Vec<Named>,
}

/// A source tree.
#[derive(Debug, Default)]
pub struct Tree {
    /// Every file that is not test code.
    pub files: Vec<File>,
    /// What hides a dependency from this reader, as `FILE:LINE: what`.
    pub oddities: Vec<String>,
    scopes: BTreeMap<Place, Scope>,
    named: Vec<Named>,
    exported_macros: BTreeMap<String, Place>,
    crates: BTreeSet<String>,
    /// Every module that a `mod` declares.
    declared: BTreeSet<Place>,
}

/// The crate's own name, under which the binary sees the library.
const OWN_NAME: &str = "understudy";

/// `main` for `main.rs`, the root for `lib.rs`, else the names of the folders and the file.
fn place_of(file: &str) -> Place {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    let mut place: Place = path.split('/').map(str::to_owned).collect();
    if place == ["lib"] || place.last().is_some_and(|last| last == "mod") {
        place.pop();
    }
    place
}

impl Tree {
    /// Reads files given as (name under `src`, text). `crates` are the names under which dependencies are imported.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>, crates: &[&str]) -> Tree {
        let mut tree = Tree::default();
        tree.crates.extend(
            crates
                .iter()
                .copied()
                .chain(["std", "core", "alloc"])
                .map(str::to_owned),
        );
        let read: Vec<_> = files
            .into_iter()
            .map(|(name, text)| (name, text, place_of(name), lex::without_tests(&lex::tokens(text))))
            .collect();
        let in_tests: BTreeSet<Place> = read
            .iter()
            .flat_map(|(_, _, place, stripped)| {
                stripped
                    .test_modules
                    .iter()
                    .map(|name| place.iter().chain([name]).cloned().collect())
            })
            .collect();
        for (name, text, place, stripped) in &read {
            if (1..=place.len()).any(|depth| in_tests.contains(&place[..depth])) {
                continue;
            }
            let file = File {
                name: (*name).to_owned(),
                module: place.clone(),
                text: (*text).to_owned(),
                lines: text.lines().count()
                    - stripped
                        .test_lines
                        .iter()
                        .map(|lines| lines.clone().count())
                        .sum::<usize>(),
                traits: traits(&stripped.tokens),
                macros: called_macros(&stripped.tokens),
            };
            // Also where no `mod` mounts it: that is one finding, and not one for each import of the file.
            for depth in 1..=place.len() {
                tree.declare(&place[..depth - 1], &place[depth - 1]);
            }
            tree.collect(&file, &stripped.tokens);
            tree.files.push(file);
        }
        tree.find_unmounted();
        tree
    }

    fn odd(&mut self, file: &File, line: usize, what: &str) {
        self.oddities.push(format!("{}:{line}: {what}", file.name));
    }

    fn declare(&mut self, parent: &[String], name: &str) {
        self.scopes
            .entry(parent.to_vec())
            .or_default()
            .children
            .insert(name.to_owned());
    }

    fn find_unmounted(&mut self) {
        for file in &self.files {
            let Some((last, parent)) = file.module.split_last() else {
                continue;
            };
            let is_root = parent.is_empty() && last == "main";
            if !is_root && !self.declared.contains(&file.module) {
                self.oddities.push(format!(
                    "{}:1: no `mod {last};` mounts this file, so nothing compiles it",
                    file.name
                ));
            }
        }
    }

    /// Walks a file's tokens and keeps every path in it.
    fn collect(&mut self, file: &File, tokens: &[Token]) {
        let mut scope = file.module.clone();
        // The closing brace of each inline module that is open here.
        let mut inline_ends: Vec<usize> = Vec::new();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            while inline_ends.last().is_some_and(|&end| at >= end) {
                inline_ends.pop();
                scope.pop();
            }
            match &token.kind {
                Kind::Ident(word) if word == "mod" => {
                    let Some(name) = tokens.get(at + 1).and_then(Token::ident) else {
                        at += 1;
                        continue;
                    };
                    self.declare(&scope, name);
                    self.declared
                        .insert(scope.iter().cloned().chain([name.to_owned()]).collect());
                    if tokens.get(at + 2).is_some_and(|token| token.is('{')) {
                        inline_ends.push(lex::matching(tokens, at + 2));
                        scope.push(name.to_owned());
                        self.scopes.entry(scope.clone()).or_default();
                    }
                    at += 3;
                }
                Kind::Ident(word) if word == "use" && !tokens.get(at + 1).is_some_and(|token| token.is('<')) => {
                    at = self.collect_use(file, &scope, tokens, at);
                }
                Kind::Ident(_) => at = self.collect_path(file, &scope, tokens, at),
                Kind::Str(text) => {
                    self.collect_text(file, &scope, text, token.line);
                    at += 1;
                }
                Kind::Punct('#') => {
                    let attribute = &tokens[at..lex::matching(tokens, at + 1).min(tokens.len())];
                    if attribute.get(2).and_then(Token::ident) == Some("path") {
                        self.odd(file, token.line, "`#[path]` puts a module where nobody looks for it");
                    }
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }

    fn collect_use(&mut self, file: &File, scope: &Place, tokens: &[Token], at: usize) -> usize {
        let end = (at..tokens.len())
            .find(|&end| tokens[end].is(';'))
            .unwrap_or(tokens.len());
        let is_public = tokens[..at]
            .last()
            .is_some_and(|token| token.ident() == Some("pub") || token.is(')'));
        let body = &tokens[at + 1..end];
        let global = body.first().is_some_and(|token| token.is(':'));
        let mut leaves = Vec::new();
        use_leaves(body, &mut Vec::new(), &mut leaves);
        for (segments, alias, line) in leaves {
            let named = Named {
                scope: scope.clone(),
                file: file.name.clone(),
                line,
                segments,
                global,
                alias,
            };
            let entry = self.scopes.entry(scope.clone()).or_default();
            if named.segments.last().is_some_and(|last| last == "*") {
                let mut of = named.clone();
                of.segments.pop();
                entry.globs.push(of);
                let ours = matches!(named.segments[0].as_str(), "crate" | "self" | "super");
                if is_public && ours {
                    self.odd(file, line, "a glob re-export hides who owns a name; list the names");
                }
            } else if let Some(alias) = &named.alias {
                entry.aliases.insert(alias.clone(), named.clone());
            }
            self.named.push(named);
        }
        end + 1
    }

    fn collect_path(&mut self, file: &File, scope: &Place, tokens: &[Token], start: usize) -> usize {
        let word = tokens[start].ident().unwrap_or_default();
        let is_bang = |at: usize| tokens.get(at).is_some_and(|token| token.is('!'));
        if word == "macro_rules" && is_bang(start + 1) {
            if let Some(name) = tokens.get(start + 2).and_then(Token::ident) {
                self.exported_macros.insert(name.to_owned(), scope.clone());
            }
            return start + 3;
        }
        if word == "include" && is_bang(start + 1) {
            self.odd(
                file,
                tokens[start].line,
                "`include!` brings in code that belongs to no module",
            );
        }
        let is_pair = |at: usize| {
            [at, at + 1]
                .iter()
                .all(|&at| tokens.get(at).is_some_and(|token| token.is(':')))
        };
        let after_pair = start >= 2 && is_pair(start - 2);
        let before_pair = start.checked_sub(3).map(|at| &tokens[at].kind);
        let continues = after_pair && matches!(before_pair, Some(Kind::Ident(_) | Kind::Punct('>' | ')' | ']')));
        let mut segments = vec![word.to_owned()];
        let mut at = start + 1;
        while is_pair(at) {
            match tokens.get(at + 2).map(|token| &token.kind) {
                Some(Kind::Ident(next)) => segments.push(next.clone()),
                _ => break,
            }
            at += 3;
        }
        let in_visibility = start >= 1 && tokens[start - 1].ident() == Some("in");
        if segments.len() > 1 && !continues && !in_visibility && word != "Self" {
            self.named.push(Named {
                scope: scope.clone(),
                file: file.name.clone(),
                line: tokens[start].line,
                segments,
                global: after_pair,
                alias: None,
            });
        }
        at
    }

    /// Attributes such as serde's name paths in texts.
    fn collect_text(&mut self, file: &File, scope: &Place, text: &str, line: usize) {
        let segments: Vec<String> = text.split("::").map(str::to_owned).collect();
        let is_name =
            |segment: &String| !segment.is_empty() && segment.chars().all(|c| c == '_' || c.is_alphanumeric());
        let is_ours = matches!(segments[0].as_str(), "crate" | "super" | "self");
        if segments.len() > 1 && is_ours && segments.iter().all(is_name) {
            let (scope, file) = (scope.clone(), file.name.clone());
            self.named.push(Named {
                scope,
                file,
                line,
                segments,
                global: false,
                alias: None,
            });
        }
    }

    /// Every reference, resolved. Names that are neither ours nor a known crate's (types in scope) are left out.
    pub fn references(&self) -> Vec<Reference> {
        let mut found = Vec::new();
        for named in &self.named {
            for to in self.resolve(named, CHAIN_LIMIT) {
                found.push(Reference {
                    from: named.scope.clone(),
                    file: named.file.clone(),
                    line: named.line,
                    to,
                });
            }
        }
        found
    }

    fn resolve(&self, named: &Named, chain: usize) -> Vec<Target> {
        let Some(chain) = chain.checked_sub(1) else {
            return Vec::new();
        };
        let segments = &named.segments;
        let external = || {
            self.crates
                .contains(&segments[0])
                .then(|| Target::External(segments.clone()))
        };
        if named.global {
            return vec![Target::External(segments.clone())];
        }
        let in_binary = named.scope.first().is_some_and(|first| first == "main");
        let below_self = &segments[usize::from(segments[0] == "self")..];
        let ups = below_self.iter().take_while(|segment| *segment == "super").count();
        let rest = match segments[0].as_str() {
            "crate" if in_binary => return self.descend(vec!["main".to_owned()], &segments[1..], None, chain),
            "crate" => return self.descend(Vec::new(), &segments[1..], None, chain),
            own if own == OWN_NAME => return self.descend(Vec::new(), &segments[1..], None, chain),
            _ if ups > 0 => {
                let place = named.scope[..named.scope.len().saturating_sub(ups)].to_vec();
                return self.descend(place, &below_self[ups..], None, chain);
            }
            _ => below_self,
        };
        let is_relative = rest.len() < segments.len();
        let scope = self.scopes.get(&named.scope);
        let known_here = scope.zip(rest.first()).is_some_and(|(scope, first)| {
            let by_alias = scope.aliases.contains_key(first) && named.alias.as_ref() != Some(first);
            by_alias || scope.children.contains(first)
        });
        if is_relative || known_here {
            return self.descend(named.scope.clone(), rest, named.alias.as_deref(), chain);
        }
        if let Some(found) = external() {
            return vec![found];
        }
        // Not named here, but a glob may have brought it in.
        self.through_globs(&named.scope, rest, chain)
    }

    fn through_globs(&self, place: &Place, rest: &[String], chain: usize) -> Vec<Target> {
        let Some(scope) = self.scopes.get(place) else {
            return Vec::new();
        };
        for glob in &scope.globs {
            for target in self.resolve(glob, chain) {
                let Target::Ours { module, item: None } = target else {
                    continue;
                };
                let known = self
                    .scopes
                    .get(&module)
                    .is_some_and(|scope| scope.children.contains(&rest[0]) || scope.aliases.contains_key(&rest[0]));
                if known {
                    return self.descend(module, rest, None, chain);
                }
            }
        }
        Vec::new()
    }

    /// Walks down from a module, through children and re-exports.
    fn descend(&self, mut place: Place, rest: &[String], skip: Option<&str>, chain: usize) -> Vec<Target> {
        for (index, segment) in rest.iter().enumerate() {
            if segment == "*" || segment == "self" {
                break;
            }
            let scope = self.scopes.get(&place);
            if scope.is_some_and(|scope| scope.children.contains(segment)) {
                place.push(segment.clone());
                continue;
            }
            let alias = scope.and_then(|scope| scope.aliases.get(segment));
            if let Some(named) = alias.filter(|_| skip != Some(segment.as_str())) {
                let mut longer = named.clone();
                longer.segments.extend(rest[index + 1..].iter().cloned());
                longer.alias = Some(segment.clone());
                return self.resolve(&longer, chain);
            }
            if let Some(owner) = self.exported_macros.get(segment).filter(|_| place.is_empty()) {
                return vec![Target::Ours {
                    module: owner.clone(),
                    item: Some(segment.clone()),
                }];
            }
            let through_glob = self.through_globs(&place, &rest[index..], chain);
            if !through_glob.is_empty() {
                return through_glob;
            }
            return vec![Target::Ours {
                module: place,
                item: Some(segment.clone()),
            }];
        }
        vec![Target::Ours {
            module: place,
            item: None,
        }]
    }
}

/// Splits a `use` tree into its leaves: path, the name it gets here, line.
fn use_leaves(tokens: &[Token], prefix: &mut Vec<String>, leaves: &mut Vec<(Vec<String>, Option<String>, usize)>) {
    let depth = prefix.len();
    let mut at = 0;
    let mut alias = None;
    let mut line = tokens.first().map_or(0, |token| token.line);
    while let Some(token) = tokens.get(at) {
        match &token.kind {
            Kind::Ident(word) if word == "as" => {
                alias = tokens.get(at + 1).and_then(Token::ident).map(str::to_owned);
                at += 1;
            }
            Kind::Ident(word) => {
                prefix.push(word.clone());
                line = token.line;
            }
            Kind::Punct('*') => prefix.push("*".to_owned()),
            Kind::Punct('{') => {
                let end = lex::matching(tokens, at);
                for member in group_members(&tokens[at + 1..end - 1]) {
                    use_leaves(member, prefix, leaves);
                }
                prefix.truncate(depth);
                return;
            }
            _ => {}
        }
        at += 1;
    }
    let mut segments = prefix.clone();
    prefix.truncate(depth);
    // `a::{self}` names `a`.
    if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
        segments.pop();
    }
    if let Some(last) = segments.last().cloned() {
        let alias = alias.or(Some(last)).filter(|alias| alias != "*" && alias != "_");
        leaves.push((segments, alias, line));
    }
}

fn group_members(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0_i32;
    tokens
        .split(|token| {
            depth += i32::from(token.is('{')) - i32::from(token.is('}'));
            depth == 0 && token.is(',')
        })
        .filter(|member| !member.is_empty())
        .collect()
}

/// Derived traits, and the last name of a path between `impl` and `for`.
fn traits(tokens: &[Token]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let Some(word) = token.ident() else { continue };
        let is_list = word == "derive" && tokens.get(at + 1).is_some_and(|next| next.is('('));
        let members = if is_list {
            &tokens[at + 2..lex::matching(tokens, at + 1) - 1]
        } else if word == "impl" {
            let end = (at..tokens.len())
                .find(|&end| tokens[end].is('{') || tokens[end].is(';'))
                .unwrap_or(tokens.len());
            match (at..end).find(|&end| tokens[end].ident() == Some("for")) {
                Some(end) => &tokens[at + 1..end],
                None => continue,
            }
        } else {
            continue;
        };
        found.extend(
            members
                .iter()
                .filter_map(|member| Some((member.ident()?.to_owned(), member.line))),
        );
    }
    found
}

fn called_macros(tokens: &[Token]) -> Vec<(String, usize)> {
    let is_open = |token: &Token| token.is('(') || token.is('[') || token.is('{');
    tokens
        .windows(3)
        .filter(|window| window[1].is('!') && is_open(&window[2]))
        .filter_map(|window| Some((window[0].ident()?.to_owned(), window[0].line)))
        .collect()
}
