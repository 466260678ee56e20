//! The kill journal: what it holds, what a torn or full one says, and what a restart reads.

use proptest::prelude::*;

use super::super::testing::{Folder, flag, kill, route, subject};
use super::*;
use crate::engine::guard::KillTarget;

const KEY: HashKey = HashKey([7; 16]);

fn path(folder: &Folder) -> PathBuf {
    Journal::path_for(&folder.state())
}

fn create(folder: &Folder) -> Journal {
    Journal::create(&path(folder), &KEY).expect("a new journal")
}

fn open(folder: &Folder) -> Found {
    // A child that another test starts has every descriptor of ours until it is another program, and the lock with it.
    Journal::open(&path(folder), Duration::from_secs(5))
        .expect("a sound journal")
        .expect("a journal")
}

fn refused(folder: &Folder) -> String {
    let before = fs::read(path(folder)).unwrap();
    let error = Journal::open(&path(folder), Duration::ZERO)
        .map(drop)
        .expect_err("refused");
    assert!(fs::read(path(folder)).unwrap() == before, "the file was changed");
    error.to_string()
}

fn append(journal: &mut Journal, changes: &[KillChange]) {
    let (kept, result) = journal.append(&changes.iter().collect::<Vec<_>>());
    result.unwrap();
    assert_eq!(kept, changes.len());
}

fn overwrite(folder: &Folder, at: u64, bytes: &[u8]) {
    File::options()
        .write(true)
        .open(path(folder))
        .unwrap()
        .write_all_at(bytes, at)
        .unwrap();
}

#[test]
fn kills_come_back_in_order() {
    let folder = Folder::new();
    assert!(Journal::open(&path(&folder), Duration::ZERO).unwrap().is_none());
    let mut journal = create(&folder);
    assert!(!journal.holds_lines());
    let first = [kill(route("a"), 1), kill(subject("a", 5), 1)];
    append(&mut journal, &first);
    append(&mut journal, &[kill(flag("f"), 2)]);
    drop(journal);

    let mut found = open(&folder);
    assert_eq!(found.journal.hash_key().0, KEY.0);
    assert_eq!(found.kills, [first.as_slice(), &[kill(flag("f"), 2)]].concat());
    append(&mut found.journal, &[kill(KillTarget::All, 0)]);
    drop(found);
    assert_eq!(open(&folder).kills.len(), 4);
}

#[test]
fn space_is_there_beforehand_and_a_line_takes_no_more() {
    let folder = Folder::new();
    let mut journal = create(&folder);
    assert_eq!(fs::read(path(&folder)).unwrap().len() as u64, RESERVED);
    append(&mut journal, &[kill(route("a"), 0)]);
    assert_eq!(fs::metadata(path(&folder)).unwrap().len(), RESERVED);
}

#[test]
fn emptied_journal_is_empty_and_usable() {
    let folder = Folder::new();
    let mut journal = create(&folder);
    append(&mut journal, &[kill(route("a"), 0), kill(route("b"), 0)]);
    journal.clear().unwrap();
    assert!(!journal.holds_lines());
    append(&mut journal, &[kill(route("c"), 0)]);
    drop(journal);
    assert_eq!(open(&folder).kills, [kill(route("c"), 0)]);
}

#[test]
fn emptying_that_was_cut_off_gives_the_old_lines_or_none_and_loses_no_later_one() {
    let folder = Folder::new();
    let mut journal = create(&folder);
    append(&mut journal, &[kill(route("a"), 0)]);
    append(&mut journal, &[kill(route("b"), 0)]);
    let behind = journal.next;
    drop(journal);
    // After the first step: the head is behind the lines, which are there still, or in part.
    overwrite(
        &folder,
        0,
        &padded(&JournalHead {
            hash_key: KEY.0,
            from: behind,
        }),
    );
    overwrite(&folder, HEAD + 40, &[b'\n'; 60]);

    let mut found = open(&folder);
    assert!(found.kills.is_empty() && found.journal.holds_lines());
    append(&mut found.journal, &[kill(route("c"), 0)]);
    drop(found);
    let mut found = open(&folder);
    assert_eq!(found.kills, [kill(route("c"), 0)]);
    found.journal.clear().unwrap();
    drop(found);
    let found = open(&folder);
    assert!(found.kills.is_empty() && !found.journal.holds_lines());
}

#[test]
fn damage_is_refused_and_left_as_it_is() {
    type Harm = fn(&Folder, u64);
    let harm: [(&str, Harm, &str); 6] = [
        ("head", |folder, _| overwrite(folder, 30, b"?"), "damaged head"),
        (
            "first line",
            |folder, _| overwrite(folder, HEAD + 30, b"?"),
            "is damaged",
        ),
        (
            "first line cut",
            |folder, _| overwrite(folder, HEAD + 30, &[b'\n'; 20]),
            "damaged before its last line",
        ),
        (
            "last line, whole",
            |folder, last| overwrite(folder, last + 30, b"?"),
            "is damaged",
        ),
        (
            "too short",
            |folder, _| {
                File::options()
                    .write(true)
                    .open(path(folder))
                    .unwrap()
                    .set_len(100)
                    .unwrap();
            },
            "head",
        ),
        (
            "a folder",
            |folder, _| {
                fs::remove_file(path(folder)).unwrap();
                fs::create_dir(path(folder)).unwrap();
            },
            "not a regular file",
        ),
    ];
    for (name, harm, says) in harm {
        let folder = Folder::new();
        let mut journal = create(&folder);
        append(&mut journal, &[kill(route("a"), 0)]);
        let last = journal.next;
        append(&mut journal, &[kill(route("b"), 0)]);
        drop(journal);
        harm(&folder, last);
        let error = if path(&folder).is_dir() {
            Journal::open(&path(&folder), Duration::ZERO)
                .map(drop)
                .expect_err(name)
                .to_string()
        } else {
            refused(&folder)
        };
        assert!(error.contains(says), "{name}: {error}");
    }
}

#[test]
fn remains_of_a_failed_attempt_do_not_look_like_a_line() {
    let folder = Folder::new();
    let mut journal = create(&folder);
    append(&mut journal, &[kill(route("a"), 0)]);
    // Written, not synced, and then not needed any more: another kill takes its place.
    let long: Vec<_> = (0..8)
        .map(|n| kill(subject("a-route-with-a-long-name", n), 0))
        .collect();
    let remains = kills_line(&long.iter().collect::<Vec<_>>());
    overwrite(&folder, journal.next, remains.as_bytes());
    journal.dirty = journal.next + remains.len() as u64;
    append(&mut journal, &[kill(route("b"), 0)]);
    let behind = journal.next as usize;
    drop(journal);
    assert_eq!(open(&folder).kills, [kill(route("a"), 0), kill(route("b"), 0)]);
    assert!(
        fs::read(path(&folder)).unwrap()[behind..]
            .iter()
            .all(|byte| *byte == b'\n')
    );
}

#[test]
fn held_subjects_leave_room_for_a_kill_of_their_route() {
    let folder = Folder::new();
    let mut journal = create(&folder);
    let holds: Vec<_> = (0..30_000).map(|n| kill(subject("a", n), 0)).collect();
    let (kept, result) = journal.append(&holds.iter().collect::<Vec<_>>());
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(kept > 10_000 && kept < holds.len(), "{kept}");
    assert_eq!(fs::metadata(path(&folder)).unwrap().len(), LIMIT);
    append(&mut journal, &[kill(route("a"), 0)]);
    drop(journal);
    assert_eq!(open(&folder).kills.len(), kept + 1);
}

#[test]
fn moved_journal_takes_nothing() {
    let folder = Folder::new();
    let mut journal = create(&folder);
    fs::remove_file(path(&folder)).unwrap();
    let (kept, result) = journal.append(&[&kill(route("a"), 0)]);
    assert!(kept == 0 && result.unwrap_err().to_string().contains("moved or deleted"));
}

#[test]
fn second_instance_is_kept_out_until_the_first_ends() {
    let folder = Folder::new();
    let journal = create(&folder);
    assert!(refused(&folder).contains("in use by another instance"));
    drop(journal);
    open(&folder);
}

#[test]
fn lost_space_is_reserved_again() {
    let folder = Folder::new();
    drop(create(&folder));
    File::options()
        .write(true)
        .open(path(&folder))
        .unwrap()
        .set_len(HEAD)
        .unwrap();
    let mut found = open(&folder);
    found.journal.adopt(&HashKey([8; 16])).unwrap();
    drop(found);
    assert_eq!(fs::metadata(path(&folder)).unwrap().len(), RESERVED);
    assert_eq!(open(&folder).journal.hash_key().0, [8; 16]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn torn_last_line_costs_itself_alone(holds in 1_u64..32, cuts in proptest::collection::vec(any::<bool>(), 24), page in 64_usize..512) {
        let folder = Folder::new();
        let mut journal = create(&folder);
        append(&mut journal, &[kill(route("a"), 0)]);
        let start = journal.next as usize;
        append(&mut journal, &(0..holds).map(|n| kill(subject("a", n), 0)).collect::<Vec<_>>());
        let behind = journal.next as usize;
        drop(journal);
        // Of the last write some pages arrived and some did not, in any order.
        let mut bytes = fs::read(path(&folder)).unwrap();
        let mut torn = false;
        for at in start..behind {
            if !cuts[at / page % cuts.len()] && bytes[at] != b'\n' {
                bytes[at] = b'\n';
                torn = true;
            }
        }
        fs::write(path(&folder), bytes).unwrap();
        let mut found = open(&folder);
        prop_assert_eq!(found.kills.len(), if torn { 1 } else { 1 + holds as usize });
        append(&mut found.journal, &[kill(flag("f"), 0)]);
        drop(found);
        let found = open(&folder);
        prop_assert_eq!(found.kills.last(), Some(&kill(flag("f"), 0)));
    }
}
