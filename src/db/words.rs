//! The words for the numbers in `hits`, which `hits_readable` shows.

use tokio_postgres::{Client, Error};

use pixeld_core::networks::Network;
use pixeld_core::opens::agent::Client as MailClient;
use pixeld_core::opens::class::Class;
use pixeld_core::opens::rule::Rule;

/// Writes the words that this program knows. Words of a newer program that this one does not know stay.
pub(crate) async fn write(client: &Client) -> Result<(), Error> {
    let mut words: Vec<(&str, i16, &str, Option<i16>, &str)> = Vec::new();
    words.extend(Class::ALL.iter().map(|class| ("class", class.number(), class.name(), None, "")));
    words.extend(
        Rule::ALL.iter().map(|rule| ("rule", rule.number(), rule.name(), Some(rule.class().number()), rule.sentence())),
    );
    words.push(("network", 0, "none known", None, ""));
    words.extend(Network::ALL.iter().map(|network| ("network", network.number() as i16, network.name(), None, "")));
    words.extend(MailClient::ALL.iter().map(|client| ("client", client.number(), client.name(), None, "")));
    let kinds: Vec<&str> = words.iter().map(|word| word.0).collect();
    let numbers: Vec<i16> = words.iter().map(|word| word.1).collect();
    let names: Vec<&str> = words.iter().map(|word| word.2).collect();
    let classes: Vec<Option<i16>> = words.iter().map(|word| word.3).collect();
    let sentences: Vec<&str> = words.iter().map(|word| word.4).collect();
    // Only differences are written, so that a start creates no row versions.
    let upsert = "INSERT INTO words AS w (kind, number, name, class, sentence) \
                  SELECT * FROM unnest($1::text[], $2::smallint[], $3::text[], $4::smallint[], $5::text[]) \
                  ON CONFLICT (kind, number) DO UPDATE \
                  SET name = excluded.name, class = excluded.class, sentence = excluded.sentence \
                  WHERE (w.name, w.class, w.sentence) IS DISTINCT FROM (excluded.name, excluded.class, excluded.sentence)";
    client.execute(upsert, &[&kinds, &numbers, &names, &classes, &sentences]).await?;
    Ok(())
}
