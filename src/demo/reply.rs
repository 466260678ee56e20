//! What the bots answer, and what is wrong with the new one.
//!
//! Pure. In: the body of a webhook. Out: the answer. The new bot has five bugs, each at a place of its own, so that the
//! comparison has something to find; [`PLANTED`] lists them.

use serde_json::{Map, Value, json};

use super::webhook::{Update, list, price, text, updates};
use crate::engine::vocab::Side;

/// A bug of the new bot.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    /// Where the comparison sees it.
    pub path: &'static str,
    /// The kind of difference that it reports.
    pub kind: &'static str,
    /// How grave it is by the demo's configuration.
    pub severity: &'static str,
    /// What the bot does.
    pub what: &'static str,
}

/// Everything that the comparison has to find, the gravest first.
pub const PLANTED: [Planted; 5] = [
    Planted {
        path: "/messages/*/reply/total",
        kind: "value",
        severity: "critical",
        what: "an order's total is cut to ten cents",
    },
    Planted {
        path: "/messages/*/reply/items/*/quantity",
        kind: "type",
        severity: "critical",
        what: "a quantity is answered as a text",
    },
    Planted {
        path: "/messages/*/reply/caption",
        kind: "missing",
        severity: "critical",
        what: "a picture's caption is left out",
    },
    Planted {
        path: "/messages/*/reply/greeting",
        kind: "value",
        severity: "major",
        what: "an é is taken apart into e and an accent",
    },
    Planted {
        path: "/messages/*/reply/intent",
        kind: "extra",
        severity: "minor",
        what: "a guess at the intent is added",
    },
];

/// The answer of one bot to a body, `trace` being the id that it gives its work.
#[must_use]
pub fn answer(side: Side, body: &Value, trace: u64) -> Value {
    let all = updates(body);
    let mut answer = Map::new();
    answer.insert("status".to_owned(), json!("accepted"));
    let messages: Vec<Value> = all
        .iter()
        .filter_map(|update| Some((update, update.message?)))
        .map(|(update, message)| json!({ "id": update.key, "reply": reply(side, update, message) }))
        .collect();
    if messages.is_empty() {
        answer.insert(
            "noted".to_owned(),
            all.iter().map(|update| update.key.as_str()).collect(),
        );
    } else {
        answer.insert("messages".to_owned(), Value::Array(messages));
        answer.insert("trace".to_owned(), json!(format!("{side}-{trace}")));
    }
    Value::Object(answer)
}

fn reply(side: Side, update: &Update<'_>, message: &Value) -> Value {
    let new = side == Side::New;
    let mut reply = Map::new();
    reply.insert("to".to_owned(), json!(update.number));
    let greeting = format!("Bonjour {} !", update.name);
    reply.insert(
        "greeting".to_owned(),
        json!(if new {
            greeting.replace('é', "e\u{301}")
        } else {
            greeting
        }),
    );
    match text(message, "type") {
        "image" => {
            reply.insert("text".to_owned(), json!("Thank you for the picture."));
            if !new {
                reply.insert("caption".to_owned(), message["image"]["caption"].clone());
            }
        }
        "interactive" => {
            reply.insert("text".to_owned(), json!("Our shop there opens at nine."));
            if new {
                reply.insert("intent".to_owned(), json!("opening_hours"));
            }
        }
        "order" => order(new, &message["order"], &mut reply),
        _ => {
            reply.insert("text".to_owned(), json!("Your parcel is on its way."));
        }
    }
    Value::Object(reply)
}

fn order(new: bool, order: &Value, reply: &mut Map<String, Value>) {
    let mut total = 0_u32;
    let mut items = Vec::new();
    for item in list(order, "product_items") {
        let quantity = item["quantity"]
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or_default();
        total = total.saturating_add(cents(&item["item_price"]).saturating_mul(quantity));
        let quantity = if new {
            json!(quantity.to_string())
        } else {
            json!(quantity)
        };
        items.push(json!({ "article": item["product_retailer_id"], "quantity": quantity }));
    }
    reply.insert("items".to_owned(), Value::Array(items));
    reply.insert("total".to_owned(), price(if new { total / 10 * 10 } else { total }));
    reply.insert("currency".to_owned(), json!("EUR"));
}

/// A price as cents, read from its digits: what a float holds is not what was written.
fn cents(price: &Value) -> u32 {
    let written = price.to_string();
    let (whole, rest) = written.split_once('.').unwrap_or((&written, ""));
    let rest: String = rest.chars().chain("00".chars()).take(2).collect();
    format!("{whole}{rest}").parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::shoppers::Shopper;
    use super::super::webhook::{Content, body, message, messages, status, statuses};
    use super::*;

    fn both(name: &'static str, content: &Content) -> [Value; 2] {
        let shopper = Shopper {
            number: "33639980123".to_owned(),
            name,
            tester: false,
        };
        let text = body(vec![messages(
            &[&shopper],
            vec![message(&shopper, "wamid.1", 1, content)],
        )]);
        let read = serde_json::from_str(&text).expect("it is JSON");
        Side::BOTH.map(|side| answer(side, &read, 7)["messages"][0]["reply"].clone())
    }

    #[test]
    fn words_of_somebody_without_an_accent_are_answered_alike() {
        for content in [Content::Text("Hello"), Content::Button] {
            let [legacy, new] = both("Sam Lee", &content);
            assert_eq!(legacy, new);
        }
    }

    #[test]
    fn each_bug_shows_where_it_was_planted_and_nowhere_else() {
        let order = Content::Order(vec![("TEA", 3, 435), ("CUP", 1, 1200)]);
        let [legacy, new] = both("Sam Lee", &order);
        assert_eq!((&legacy["total"], &new["total"]), (&json!(25.05), &json!(25)));
        assert_eq!(
            (&legacy["items"][0]["quantity"], &new["items"][0]["quantity"]),
            (&json!(3), &json!("3"))
        );

        let [legacy, new] = both("Sam Lee", &Content::Image);
        assert_eq!((&legacy["caption"], new.get("caption")), (&json!("broken/label"), None));

        let [legacy, new] = both("Chloé Petit", &Content::Button);
        assert_eq!(legacy["greeting"], "Bonjour Chloé Petit !");
        assert_eq!(new["greeting"], "Bonjour Chloe\u{301} Petit !");

        let [legacy, new] = both("Sam Lee", &Content::Interactive);
        assert_eq!((legacy.get("intent"), &new["intent"]), (None, &json!("opening_hours")));
    }

    #[test]
    fn a_status_is_noted_alike() {
        let shopper = Shopper {
            number: "33639980123".to_owned(),
            name: "Sam Lee",
            tester: false,
        };
        let text = body(vec![statuses(status(&shopper, "wamid.2", 1, "read"))]);
        let read = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(
            answer(Side::Legacy, &read, 1),
            json!({ "status": "accepted", "noted": ["wamid.2:read"] })
        );
        assert_eq!(answer(Side::New, &read, 2), answer(Side::Legacy, &read, 1));
    }
}
