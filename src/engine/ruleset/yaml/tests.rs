//! Texts as they were written, places, budgets, and files that were torn.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> (Option<Node<'_>>, Vec<String>) {
    let mut problems = Problems::default();
    let tree = parse(&"f".into(), text, &mut problems);
    (
        tree,
        problems
            .verdict()
            .unwrap_or_else(|list| list)
            .iter()
            .map(ToString::to_string)
            .collect(),
    )
}

fn good(text: &str) -> Node<'_> {
    let (tree, problems) = read(text);
    assert!(problems.is_empty(), "{text:?}: {problems:?}");
    tree.unwrap()
}

/// The tree as one line: `{a: 1, b: ["x", y]}`, quoted texts in quotes.
fn shown(node: &Node<'_>) -> String {
    match &node.value {
        Value::Plain(text) => text.to_string(),
        Value::Quoted(text) => format!("{text:?}"),
        Value::Sequence(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Mapping(entries) => {
            let members: Vec<_> = entries
                .iter()
                .map(|e| format!("{}: {}", e.key, shown(&e.value)))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
    }
}

#[test]
fn scalars_keep_their_text_and_whether_it_was_quoted() {
    for (text, tree) in [
        ("", ""),
        ("# only a comment\n", ""),
        ("a: 0123\nb: '0123'\nc: \"x\\ty\"", r#"{a: 0123, b: "0123", c: "x\ty"}"#),
        ("a: |\n  text\n  more\n", r#"{a: "text\nmore\n"}"#),
        ("a: !!str 12\nb: !!int 12", r#"{a: "12", b: 12}"#),
        ("--- \na: 1\n...\n", "{a: 1}"),
        ("\u{feff}a: 1", "{a: 1}"),
        (r#"{"a": 1.50, "b": [true, null]}"#, "{a: 1.50, b: [true, null]}"),
    ] {
        assert_eq!(shown(&good(text)), tree, "{text:?}");
    }
}

#[test]
fn places_count_characters_from_one_and_omitted_values_stand_at_their_key() {
    let tree = good("a: 1\r\nb: [é, y]\r\nc:   # nothing\nd: 4\n");
    let Value::Mapping(entries) = &tree.value else {
        panic!("a map")
    };
    let places: Vec<_> = entries
        .iter()
        .map(|e| (e.mark.line, e.mark.column, e.value.mark.line, e.value.mark.column))
        .collect();
    assert_eq!(places, [(1, 1, 1, 4), (2, 1, 2, 4), (3, 1, 3, 1), (4, 1, 4, 4)]);
    let Value::Sequence(items) = &entries[1].value.value else {
        panic!("a list")
    };
    assert_eq!(items[1].mark, Mark { line: 2, column: 8 });
    assert!(entries[2].value.is_null());
}

#[test]
fn aliases_are_written_out_and_keep_their_place() {
    assert_eq!(shown(&good("a: &x [1, 2]\nb: *x\n")), "{a: [1, 2], b: [1, 2]}");
    assert_eq!(
        good("a: &x [1, 2]\nb: *x\n").value_of("b").mark,
        Mark { line: 1, column: 7 }
    );
    assert_eq!(shown(&good("a: &x k\n*x : 3\n")), "{a: k, k: 3}");
}

#[test]
fn every_torn_text_has_a_place_and_a_remedy() {
    for (text, problem) in [
        (
            "a: 1\n\tb: 2\n",
            "f:2:1: a tab stands where YAML wants spaces. indent with spaces",
        ),
        (
            "a:\n\t- b\n",
            "f:2:1: a tab stands where YAML wants spaces. indent with spaces",
        ),
        ("a: [1, 2", "f:1:4: the bracket `[` is never closed. close it"),
        ("a: {b: 1", "f:1:4: the bracket `{` is never closed. close it"),
        (
            "a: [b]]\n",
            "f:1:7: a bracket is closed that was not opened. remove it, or open it",
        ),
        ("a: 'x", "f:1:4: a quote is never closed. close it"),
        (
            "a: 1\n---\nb: 2\n",
            "f:2:1: a second document begins here. keep one document in a file: remove this `---`",
        ),
        (
            "a: *x\n",
            "f:1:4: this alias names nothing. define it with `&name` before it is used; a text that begins with `*` needs quotes",
        ),
        (
            "a: &x [*x]\n",
            "f:1:8: this alias stands inside the value it names. write the value out",
        ),
        (
            "a:\n  b: 1\n c: 2\n",
            "f:3:2: the indentation does not fit what stands above. align it with its neighbours",
        ),
        (
            "a: b: c\n",
            "f:1:5: a `:` stands where no key is possible. put a text that contains `: ` in quotes, or mend the indentation",
        ),
        (
            "{{ x }}: 1\n",
            "f:1:1: a list or map stands where a key should. a key is a text: put it in quotes",
        ),
        (
            ": 1\n",
            "f:1:1: a key is missing here. write one before the colon, in quotes if it is empty",
        ),
        ("a: !foo 1", "f:1:9: the tag `!foo` means nothing here. remove it"),
        ("a: @x", "f:1:4: `@` cannot begin a text. put the text in quotes"),
        ("a: \0", "f:1:4: `\\u{0}` cannot begin a text. put the text in quotes"),
        (
            "a: {<<: 3}",
            "f:1:9: only maps can be merged by `<<`. name an anchor of a map, or a list of such",
        ),
    ] {
        let (tree, problems) = read(text);
        assert_eq!(problems, [problem], "{text:?}");
        assert_eq!(tree, None, "{text:?}");
    }
}

#[test]
fn repeated_keys_are_all_reported_with_both_places() {
    let many: String = (0..30).map(|n| format!("k{n}: 0\n")).collect();
    let text = format!("a: {{ c: 1, c: 2 }}\n{many}k20: 1\na: 3\n");
    let (tree, problems) = read(&text);
    assert_eq!(
        problems,
        [
            "f:1:12: `c` stands here a second time, after line 1, column 6. keep one of the two",
            "f:32:1: `k20` stands here a second time, after line 22, column 1. keep one of the two",
            "f:33:1: `a` stands here a second time, after line 1, column 1. keep one of the two",
        ]
    );
    assert_eq!(shown(&tree.unwrap().value_of("a")), "{c: 1}");
}

#[test]
fn own_members_win_over_merged_ones_and_the_first_source_over_the_next() {
    let text = "x: &x { p: 1, q: 2 }\ny: &y { q: 3, r: 4 }\nz: { <<: [*x, *y], p: 0 }\nt: { '<<': 1 }\n";
    assert_eq!(shown(&good(text).value_of("z")), "{p: 0, q: 2, r: 4}");
    assert_eq!(shown(&good(text).value_of("t")), "{<<: 1}");
}

#[test]
fn alias_bomb_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let again = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{again}]\n"));
    }
    let (tree, problems) = read(&text);
    assert_eq!(tree, None);
    assert!(problems[0].contains("aliases make this text too large"), "{problems:?}");
}

#[test]
fn large_list_may_be_used_in_several_places() {
    let ids: String = (0..200_000).map(|id| format!("- {id}\n")).collect();
    let text = format!("a: &ids\n{ids}b: *ids\nc: *ids\n");
    assert!(matches!(good(&text).value_of("c").value, Value::Sequence(ids) if ids.len() == 200_000));
}

#[test]
fn depth_is_bounded_through_aliases_too() {
    let (_, problems) = read(&"[".repeat(DEPTH_LIMIT + 1));
    assert_eq!(
        problems,
        ["f:1:65: lists and maps nest more than 64 deep. write it flatter"]
    );
    let deep = |inner: &str| format!("{}{inner}{}", "[".repeat(30), "]".repeat(30));
    let text = format!("a: &a {}\nb: &b {}\nc: {}\n", deep("x"), deep("*a"), deep("*b"));
    let (_, problems) = read(&text);
    assert_eq!(
        problems,
        ["f:3:34: lists and maps nest more than 64 deep. write it flatter"]
    );
}

#[test]
fn bytes_that_are_no_text_are_found() {
    let mut problems = Problems::default();
    assert_eq!(utf8(&"f".into(), "a: é\n".as_bytes(), &mut problems), Some("a: é\n"));
    assert_eq!(utf8(&"f".into(), b"a: 1\n\xc3\xa9: \xff", &mut problems), None);
    assert_eq!(
        problems.verdict().unwrap_err()[0].to_string(),
        "f:2:4: a byte that is no UTF-8 text. save the file as UTF-8"
    );
}

proptest! {
    #[test]
    fn parsing_never_panics_and_stays_within_the_depth(
        text in "([a-c]|[0-9]|\\[|\\]|\\{|\\}|: |- |&a |\\*a|<<: |, |'|\"|\\||>|!!str |#|\\?|\n|\n  |\t|%|---|é)*",
    ) {
        fn depth(node: &Node<'_>) -> usize {
            match &node.value {
                Value::Mapping(entries) => 1 + entries.iter().map(|e| depth(&e.value)).max().unwrap_or(0),
                Value::Sequence(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
                _ => 0,
            }
        }
        let (tree, problems) = read(&text);
        prop_assert!(tree.is_some() || !problems.is_empty());
        prop_assert!(tree.is_none_or(|tree| depth(&tree) <= DEPTH_LIMIT));
    }
}

impl<'t> Node<'t> {
    fn value_of(&self, key: &str) -> Node<'t> {
        let Value::Mapping(entries) = &self.value else {
            panic!("a map")
        };
        entries.iter().find(|entry| entry.key == key).unwrap().value.clone()
    }
}
