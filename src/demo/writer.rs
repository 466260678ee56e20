//! Writes the bodies that the sender delivers: who, and what, by the dice.
//!
//! Pure: the same dice write the same bodies in the same order.

use std::collections::VecDeque;

use super::shoppers::{Dice, SEED, Shopper};
use super::webhook::{self, Content};

/// Statuses that wait to be delivered, at most.
const STATUSES: usize = 1_000;

/// What a request is before it is sent.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The bytes to be signed.
    pub body: String,
    /// The shoppers in it; empty for what concerns the account.
    pub numbers: Vec<String>,
    /// Its updates: ids of messages, ids and words of statuses.
    pub keys: Vec<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Writer {
    dice: Dice,
    shoppers: Vec<Shopper>,
    seq: u64,
    /// What became of messages that the shop sent: shopper, id, word.
    statuses: VecDeque<(usize, String, &'static str)>,
}

const WORDS: [&str; 5] = [
    "Bonjour, où en est ma commande ?",
    "Where is my order?",
    "¿Dónde está mi pedido?",
    "Danke!",
    "Is it in stock?",
];

/// Shoppers at the front of the list who write more often than others, so that a phase for them alone has something to
/// show: out of 100 messages, the tester writes 6 and each canary 3.
const KNOWN: usize = 4;

impl Writer {
    /// A writer for these shoppers; the first four are the tester and the canaries.
    #[must_use]
    pub fn new(shoppers: Vec<Shopper>) -> Self {
        Self {
            dice: Dice::new(SEED),
            shoppers,
            seq: 0,
            statuses: VecDeque::new(),
        }
    }

    fn who(&mut self) -> usize {
        match self.dice.below(100) {
            0..6 => 0,
            6..9 => 1,
            9..12 => 2,
            12..15 => 3,
            _ => self.somebody(),
        }
    }

    fn somebody(&mut self) -> usize {
        KNOWN + self.dice.below(self.shoppers.len().saturating_sub(KNOWN))
    }

    fn shopper(&self, at: usize) -> Shopper {
        let nobody = || Shopper {
            number: "14155550199".to_owned(),
            name: "Sam Lee",
            tester: true,
        };
        self.shoppers.get(at).cloned().unwrap_or_else(nobody)
    }

    fn next(&mut self) -> (String, u64) {
        self.seq += 1;
        (format!("wamid.REVNTw{:08}=", self.seq), 1_790_000_000 + self.seq)
    }

    /// The next request.
    pub fn write(&mut self) -> Parcel {
        match self.dice.below(100) {
            0..25 if !self.statuses.is_empty() => self.status(),
            0..27 => self.two(),
            27..29 => self.message_and_status(),
            29 => self.account(),
            _ => {
                let who = self.who();
                self.one(who, Self::content)
            }
        }
    }

    /// A text message of the first of these shoppers.
    pub fn sample(&mut self, of: impl Fn(&str) -> bool) -> Parcel {
        let who = self
            .shoppers
            .iter()
            .position(|shopper| of(&shopper.number))
            .unwrap_or_default();
        self.one(who, |_| Content::Text("Where is my order?"))
    }

    fn content(&mut self) -> Content {
        match self.dice.below(100) {
            0..12 => Content::Button,
            12..27 => Content::Interactive,
            27..42 => Content::Image,
            42..62 => Content::Order(self.items()),
            _ => self.words(),
        }
    }

    fn words(&mut self) -> Content {
        Content::Text(WORDS.get(self.dice.below(WORDS.len())).copied().unwrap_or_default())
    }

    fn items(&mut self) -> Vec<(&'static str, u32, u32)> {
        let tea = u32::try_from(self.dice.below(3)).unwrap_or_default() + 1;
        match self.dice.below(2) {
            0 => vec![("TEA", tea, 435)],
            _ => vec![("TEA", tea, 450), ("CUP", 1, 1_299)],
        }
    }

    /// One message of one shopper.
    fn one(&mut self, who: usize, content: impl FnOnce(&mut Self) -> Content) -> Parcel {
        let shopper = self.shopper(who);
        let content = match content(self) {
            Content::Image | Content::Order(_) if shopper.tester => self.words(),
            content => content,
        };
        let (id, time) = self.next();
        let message = webhook::message(&shopper, &id, time, &content);
        self.answered(who, &id);
        let body = webhook::body(vec![webhook::messages(&[&shopper], vec![message])]);
        Parcel {
            body,
            numbers: vec![shopper.number],
            keys: vec![id],
        }
    }

    /// What will become of the shop's answer to this message.
    fn answered(&mut self, who: usize, id: &str) {
        if self.statuses.len() + 3 <= STATUSES {
            let ours = id.replacen("wamid.", "wamid.SE9Q", 1);
            self.statuses
                .extend(["sent", "delivered", "read"].map(|word| (who, ours.clone(), word)));
        }
    }

    fn status(&mut self) -> Parcel {
        let Some((who, id, word)) = self.statuses.pop_front() else {
            return self.account();
        };
        let shopper = self.shopper(who);
        let (_, time) = self.next();
        let body = webhook::body(vec![webhook::statuses(webhook::status(&shopper, &id, time, word))]);
        Parcel {
            body,
            numbers: vec![shopper.number],
            keys: vec![format!("{id}:{word}")],
        }
    }

    /// Two messages of two shoppers in one body; the profiles stand in another order than the messages.
    fn two(&mut self) -> Parcel {
        let (first, mut second) = (self.somebody(), self.somebody());
        if first == second {
            second = if first > KNOWN { first - 1 } else { first + 1 };
        }
        let (a, b) = (self.shopper(first), self.shopper(second));
        let ((id_a, time_a), (id_b, time_b)) = (self.next(), self.next());
        let (words_a, words_b) = (self.words(), self.words());
        let messages = vec![
            webhook::message(&a, &id_a, time_a, &words_a),
            webhook::message(&b, &id_b, time_b, &words_b),
        ];
        let body = webhook::body(vec![webhook::messages(&[&b, &a], messages)]);
        Parcel {
            body,
            numbers: vec![a.number, b.number],
            keys: vec![id_a, id_b],
        }
    }

    /// A message and a status of one shopper in one body.
    fn message_and_status(&mut self) -> Parcel {
        let at = self.somebody();
        let shopper = self.shopper(at);
        let ((id, time), (_, later)) = (self.next(), self.next());
        let ours = id.replacen("wamid.", "wamid.SE9R", 1);
        let words = self.words();
        let message = webhook::messages(&[&shopper], vec![webhook::message(&shopper, &id, time, &words)]);
        let status = webhook::statuses(webhook::status(&shopper, &ours, later, "read"));
        let keys = vec![id, format!("{ours}:read")];
        Parcel {
            body: webhook::body(vec![message, status]),
            numbers: vec![shopper.number],
            keys,
        }
    }

    /// Something that names no shopper.
    fn account(&mut self) -> Parcel {
        let change = if self.dice.below(2) == 0 {
            webhook::account_event()
        } else {
            let to = self.somebody();
            let (id, time) = self.next();
            webhook::app_echo(&self.shopper(to), &id, time)
        };
        Parcel {
            body: webhook::body(vec![change]),
            numbers: Vec::new(),
            keys: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::shoppers::{TESTER, population};
    use super::*;

    fn parcels(n: usize) -> Vec<Parcel> {
        let mut writer = Writer::new(population(300));
        (0..n).map(|_| writer.write()).collect()
    }

    #[test]
    fn every_run_says_the_same_and_nothing_twice() {
        let (one, other) = (parcels(3_000), parcels(3_000));
        assert!(one.iter().zip(&other).all(|(a, b)| a.body == b.body));
        let keys: Vec<&String> = one.iter().flat_map(|parcel| &parcel.keys).collect();
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    }

    #[test]
    fn every_kind_of_body_is_among_them() {
        let all = parcels(3_000);
        let some = |with: &str| all.iter().filter(|parcel| parcel.body.contains(with)).count();
        for kind in ["text", "button", "interactive", "image", "order"] {
            assert!(some(&format!("\"type\":\"{kind}\"")) > 100, "{kind}");
        }
        for word in ["sent", "delivered", "read", "message_echoes", "APPROVED"] {
            assert!(some(word) > 5, "{word}");
        }
        assert!(all.iter().any(|parcel| parcel.numbers.len() == 2));
        assert!(
            all.iter()
                .any(|parcel| parcel.numbers.len() == 1 && parcel.keys.len() == 2)
        );
    }

    #[test]
    fn the_tester_neither_orders_nor_sends_pictures_and_writes_alone() {
        for parcel in parcels(3_000)
            .iter()
            .filter(|parcel| parcel.numbers.iter().any(|number| number == TESTER))
        {
            assert_eq!(parcel.numbers.len(), 1);
            assert!(!parcel.body.contains("\"type\":\"order\"") && !parcel.body.contains("\"type\":\"image\""));
        }
    }
}
