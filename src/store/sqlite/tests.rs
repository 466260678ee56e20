//! The state file: transactions, checks at the start, and what is refused.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use super::super::testing::{Folder, flag, kill, rearm, route, subject};
use super::*;

const BUSY: Duration = Duration::from_millis(10);

fn open(folder: &Folder) -> (Database, Found) {
    Database::open(&folder.state(), BUSY, false).expect("a sound state file")
}

/// A state file with a kill in it, closed.
fn written() -> Folder {
    let folder = Folder::new();
    open(&folder).0.join(&[kill(route("whatsapp"), 0)]).unwrap();
    folder
}

fn actions(database: &Database) -> Vec<(String, String)> {
    let records = database
        .audit_tail(&AuditQuery::newest(None, 100))
        .unwrap()
        .into_iter()
        .rev();
    records
        .map(|record| (record.entry.action, record.entry.target))
        .collect()
}

fn said(action: &str, target: &str) -> (String, String) {
    (action.into(), target.into())
}

#[test]
fn file_keeps_its_secret_and_its_kills() {
    let folder = Folder::new();
    let (mut database, found) = open(&folder);
    assert_eq!(found.kills, KillSet::default());
    let changes = [
        kill(KillTarget::All, 0),
        kill(flag("f"), 3),
        kill(route("whatsapp"), 1),
        kill(subject("whatsapp", 9), 1),
    ];
    database.join(&changes).unwrap();
    drop(database);

    let (_, again) = open(&folder);
    assert_eq!(again.hash_key.0, found.hash_key.0);
    for KillChange { target, kill, .. } in &changes {
        assert_eq!(again.kills.find(target), Some(kill));
    }
}

#[test]
fn two_files_have_two_secrets() {
    let key = |folder: Folder| open(&folder).1.hash_key.0;
    assert_ne!(key(Folder::new()), key(Folder::new()));
}

#[test]
fn files_are_readable_by_nobody_else() {
    let folder = Folder::new();
    let (mut database, _) = open(&folder);
    database.join(&[kill(route("whatsapp"), 0)]).unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{:?}",
            entry.file_name()
        );
        seen += 1;
    }
    assert_eq!(seen, 3, "database, log, index of the log");
}

#[test]
fn unsound_file_is_refused_and_left_as_it_is() {
    type Harm = fn(&Path);
    let harm: [(&str, Harm, &str); 7] = [
        (
            "a text",
            |path| fs::write(path, "kills: none\n".repeat(1000)).unwrap(),
            "file is not a database",
        ),
        (
            "cut off",
            |path| File::options().write(true).open(path).unwrap().set_len(5_000).unwrap(),
            "malformed",
        ),
        (
            "pages overwritten",
            |path| {
                let pages = fs::metadata(path).unwrap().len() / 4096;
                let file = File::options().write(true).open(path).unwrap();
                (1..pages).for_each(|page| file.write_all_at(&[0xa5; 64], page * 4096).unwrap());
            },
            "malformed",
        ),
        (
            "another program's",
            |path| sql(path, "PRAGMA application_id = 7"),
            "another program",
        ),
        (
            "a later schema",
            |path| sql(path, "PRAGMA user_version = 3"),
            "has schema 3, and this version reads schemas up to 2",
        ),
        (
            "a strange target",
            |path| sql(path, "UPDATE kills SET target = 'moon'"),
            "a row that no version wrote",
        ),
        (
            "no secret",
            |path| sql(path, "DELETE FROM meta"),
            "a row that no version wrote",
        ),
    ];
    for (name, harm, says) in harm {
        let folder = written();
        harm(&folder.state());
        let before = fs::read(folder.state()).unwrap();
        let error = Database::open(&folder.state(), BUSY, false).map(drop).expect_err(name);
        assert!(error.to_string().contains(says), "{name}: {error}");
        assert!(
            fs::read(folder.state()).unwrap() == before,
            "{name}: the file was changed"
        );
    }
}

#[test]
fn file_of_the_version_before_keeps_what_it_has_and_takes_layers() {
    let folder = written();
    sql(
        &folder.state(),
        "DROP TABLE layers; DROP TABLE freezes; DROP TABLE history; PRAGMA user_version = 1",
    );
    let (_, found) = Database::open(&folder.state(), BUSY, false).unwrap();
    assert!(found.kills.iter().count() > 0 && found.layers.stored.is_empty());
    let (_, found) = Database::open(&folder.state(), BUSY, false).unwrap();
    assert!(found.kills.iter().count() > 0, "it opens again as one of this version");
}

fn sql(path: &Path, text: &str) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(text).unwrap();
}

#[test]
fn damage_that_reading_does_not_show_is_seen_at_the_start() {
    let folder = Folder::new();
    open(&folder)
        .0
        .join(&[kill(flag("a1"), 0), kill(flag("b1"), 0), kill(flag("c1"), 0)])
        .unwrap();
    // The rows are all there, in an order in which they are not found again.
    let mut bytes = fs::read(folder.state()).unwrap();
    let page: u32 = {
        let connection = Connection::open(folder.state()).unwrap();
        connection
            .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'kills'", [], |row| {
                row.get(0)
            })
            .unwrap()
    };
    let table = &mut bytes[(page as usize - 1) * 4096..][..4096];
    let at = table.windows(7).position(|text| text == b"flag:a1").unwrap();
    table[at + 5] = b'z';
    fs::write(folder.state(), bytes).unwrap();
    let error = Database::open(&folder.state(), BUSY, false)
        .map(drop)
        .expect_err("damage");
    assert!(error.to_string().contains("is damaged"), "{error}");
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = Folder::new();
    let refused = |path: &Path| {
        Database::open(path, BUSY, false)
            .map(drop)
            .expect_err("refused")
            .to_string()
    };
    assert!(refused(folder.path()).contains("is not a regular file"));
    assert!(refused(&folder.path().join("missing/understudy.db")).contains("No such file"));
}

#[test]
fn empty_file_is_new_unless_a_journal_says_otherwise() {
    let folder = Folder::new();
    fs::write(folder.state(), "").unwrap();
    let error = Database::open(&folder.state(), BUSY, true)
        .map(drop)
        .expect_err("refused");
    assert!(error.to_string().contains("has lost its content"), "{error}");
    open(&folder);
}

#[test]
fn late_kill_of_an_older_epoch_undoes_nothing_but_is_told() {
    let folder = written();
    let (mut database, _) = open(&folder);
    database.rearm(&rearm(route("whatsapp"), 1), || true).unwrap().unwrap();
    let mut late = kill(route("whatsapp"), 0);
    late.kill.at_unix_ms = 2_000;
    database.join(&[late]).unwrap();
    let target = "route:whatsapp";
    assert_eq!(
        actions(&database),
        [said("kill", target), said("rearm", target), said("kill", target)]
    );
    assert_eq!(database.verify_audit().unwrap(), Chain::Whole(3));
    drop(database);
    assert!(!open(&folder).1.kills.find(&route("whatsapp")).unwrap().killed);
}

#[test]
fn kill_that_is_stored_already_is_not_told_twice() {
    let folder = written();
    let (mut database, _) = open(&folder);
    database
        .join(&[kill(route("whatsapp"), 0), kill(flag("f"), 0)])
        .unwrap();
    assert_eq!(
        actions(&database),
        [said("kill", "route:whatsapp"), said("kill", "flag:f")]
    );
}

#[test]
fn audit_record_tells_who_what_before_and_after() {
    let folder = written();
    let (mut database, _) = open(&folder);
    database.rearm(&rearm(route("whatsapp"), 1), || true).unwrap();
    let record = database.audit_tail(&AuditQuery::newest(None, 1)).unwrap().remove(0);
    assert_eq!(
        record.entry,
        AuditEntry {
            at_unix_ms: 1_000,
            actor: "ann".into(),
            role: Some("operator".into()),
            from: Some("127.0.0.1".into()),
            action: "rearm".into(),
            target: "route:whatsapp".into(),
            reason: "repaired".into(),
            before: Some(
                r#"{"epoch":0,"killed":true,"reason":"too many errors","actor":"ann","at_unix_ms":1000}"#.into()
            ),
            after: Some(r#"{"epoch":1,"killed":false,"reason":"repaired","actor":"ann","at_unix_ms":1000}"#.into()),
        }
    );
}

#[test]
fn route_rearm_lifts_its_held_subjects_and_no_others() {
    let folder = Folder::new();
    let (mut database, _) = open(&folder);
    let held = [
        kill(subject("a", 1), 0),
        kill(subject("a", 2), 4),
        kill(subject("a.b", 3), 0),
        kill(subject("a0", 4), 0),
    ];
    database.join(&held).unwrap();
    let lifted = database.rearm(&rearm(route("a"), 1), || true).unwrap().unwrap();
    assert_eq!(lifted.kill.epoch, Epoch(5), "above every epoch that it lifts");
    assert_eq!(lifted.undo.len(), 2);
    // A hold from before the re-arm comes in late.
    database.join(&[kill(subject("a", 9), 4)]).unwrap();
    drop(database);
    let kills = open(&folder).1.kills;
    let killed: Vec<_> = kills.killed().map(|(target, _)| target).collect();
    assert_eq!(killed, [subject("a.b", 3), subject("a0", 4)]);
}

#[test]
fn rearm_that_nobody_waits_for_has_not_happened() {
    let folder = written();
    let (mut database, _) = open(&folder);
    assert!(
        database
            .rearm(&rearm(route("whatsapp"), 1), || false)
            .unwrap()
            .is_none()
    );
    assert_eq!(actions(&database), [said("kill", "route:whatsapp")]);
    drop(database);
    assert!(open(&folder).1.kills.find(&route("whatsapp")).unwrap().killed);
}

#[test]
fn undoing_a_rearm_kills_again_and_the_next_rearm_works() {
    let folder = Folder::new();
    let (mut database, _) = open(&folder);
    database.join(&[kill(route("a"), 0), kill(subject("a", 1), 0)]).unwrap();
    let lifted = database.rearm(&rearm(route("a"), 1), || true).unwrap().unwrap();
    database.join(&lifted.undo).unwrap();
    drop(database);

    let (mut database, found) = open(&folder);
    assert!(found.kills.find(&route("a")).unwrap().killed && found.kills.find(&subject("a", 1)).unwrap().killed);
    // Whoever asks still knows the epoch from before.
    let again = database.rearm(&rearm(route("a"), 1), || true).unwrap().unwrap();
    assert_eq!(again.kill.epoch, Epoch(2));
    drop(database);
    assert_eq!(open(&folder).1.kills.killed().count(), 0);
}

#[test]
fn mark_rises_on_its_ramp_and_starts_anew_on_another() {
    let folder = Folder::new();
    let ramp = |text: &str| Ramp::parse(text).unwrap();
    let (slow, fast) = (ramp("1754006400000+100000"), ramp("1754006400000+200000"));
    let mark = |schedule, buckets| RampMark {
        flag: FlagKey::parse("f").unwrap(),
        schedule,
        reached: Threshold::from_buckets(buckets),
    };
    let (mut database, _) = open(&folder);
    for (kept, stored) in [
        (mark(slow, 500), 500),
        (mark(slow, 400), 500),
        (mark(slow, 600), 600),
        (mark(fast, 7), 7),
    ] {
        database.keep_ramps(std::slice::from_ref(&kept)).unwrap();
        let found = read(&database.connection).unwrap().unwrap().ramps;
        assert_eq!(found, [mark(kept.schedule, stored)]);
    }
}

#[test]
fn nothing_counts_as_stored_in_a_file_that_is_no_longer_there() {
    let folder = written();
    let (mut database, _) = open(&folder);
    let away = folder.path().join("away");
    fs::rename(folder.state(), &away).unwrap();
    let error = database.join(&[kill(flag("f"), 0)]).expect_err("the file was moved");
    assert!(error.to_string().contains("moved or deleted while in use"), "{error}");
    fs::rename(&away, folder.state()).unwrap();
    database.join(&[kill(flag("f"), 0)]).unwrap();
}
