//! The languages of the opt-out page, and how a reader's is chosen. Pure.

/// Maximum entries of `Accept-Language` that are read.
const ENTRIES_MAX: usize = 50;

/// A language that the page speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    English,
    German,
    French,
    Italian,
    Spanish,
}

/// What the page says in one language.
pub(super) struct Words {
    pub(super) ask_title: &'static str,
    pub(super) ask: &'static str,
    pub(super) opt_out: &'static str,
    pub(super) out_title: &'static str,
    pub(super) out: &'static str,
    pub(super) undo: &'static str,
    pub(super) in_title: &'static str,
    pub(super) in_again: &'static str,
    pub(super) not_valid_title: &'static str,
    pub(super) not_valid: &'static str,
    pub(super) later_title: &'static str,
    pub(super) too_often: &'static str,
    pub(super) away: &'static str,
}

impl Language {
    /// All of them.
    const ALL: [Language; 5] =
        [Language::English, Language::German, Language::French, Language::Italian, Language::Spanish];

    /// As HTML and HTTP write it.
    pub(super) const fn tag(self) -> &'static str {
        match self {
            Language::English => "en",
            Language::German => "de",
            Language::French => "fr",
            Language::Italian => "it",
            Language::Spanish => "es",
        }
    }

    /// The available language that a reader likes best, by `Accept-Language`; English if none is.
    pub(super) fn best(accepted: &str) -> Language {
        let mut best = (Language::English, 0.0);
        for entry in accepted.split(',').take(ENTRIES_MAX) {
            let mut parts = entry.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default();
            let primary = tag.split('-').next().unwrap_or_default();
            let known = Language::ALL.into_iter().find(|language| language.tag().eq_ignore_ascii_case(primary));
            let weight = parts.next().map_or(Some(1.0), |part| part.strip_prefix("q=")?.parse::<f32>().ok());
            // The standard has no weight beyond these.
            let weight = weight.filter(|weight| (0.0..=1.0).contains(weight));
            if let (Some(language), Some(weight)) = (known, weight)
                && weight > best.1
            {
                best = (language, weight);
            }
        }
        best.0
    }

    /// The texts in it.
    pub(super) const fn words(self) -> &'static Words {
        match self {
            Language::English => &ENGLISH,
            Language::German => &GERMAN,
            Language::French => &FRENCH,
            Language::Italian => &ITALIAN,
            Language::Spanish => &SPANISH,
        }
    }
}

const ENGLISH: Words = Words {
    ask_title: "Open your emails without being recorded",
    ask: "The emails of this sender contain a small image. When you open one, your mail program loads the image, and the sender can \
          see that you opened the email, and when. You can switch this off here for all emails of this sender, including those that \
          you already have. You will still get the emails.",
    opt_out: "Do not record me",
    out_title: "You are no longer recorded",
    out: "From now on the sender cannot see whether you open their emails, including those that you already have. You will \
          still get the emails.",
    undo: "Undo: record me again",
    in_title: "You are recorded again",
    in_again: "From now on the sender can see again when you open their emails.",
    not_valid_title: "This link is not valid",
    not_valid: "Part of it may be missing. Open the link in the email again, or write to the sender.",
    later_title: "Please try again later",
    too_often: "There were too many requests in a short time. Nothing was changed. Please try again in a few minutes.",
    away: "This is not possible at the moment. Nothing was changed. Please try again in a few minutes.",
};

const GERMAN: Words = Words {
    ask_title: "E-Mails öffnen, ohne erfasst zu werden",
    ask: "Die E-Mails dieses Absenders enthalten ein kleines Bild. Beim Öffnen wird es geladen, und der Absender kann sehen, \
          dass Sie es waren, und wann. Hier können Sie das abschalten: für alle E-Mails dieses Absenders, auch für die, die Sie \
          schon haben. Sie bekommen die E-Mails weiterhin.",
    opt_out: "Mich nicht erfassen",
    out_title: "Sie werden nicht mehr erfasst",
    out: "Von jetzt an sieht der Absender nicht mehr, ob Sie E-Mails öffnen, auch nicht die, die Sie schon haben. Sie bekommen \
          die E-Mails weiterhin.",
    undo: "Rückgängig: mich wieder erfassen",
    in_title: "Sie werden wieder erfasst",
    in_again: "Von jetzt an sieht der Absender wieder, wann Sie E-Mails öffnen.",
    not_valid_title: "Dieser Link ist nicht gültig",
    not_valid: "Vielleicht ist unterwegs ein Teil davon verloren gegangen. Öffnen Sie den Link in der E-Mail noch einmal, oder \
                schreiben Sie dem Absender.",
    later_title: "Bitte versuchen Sie es später noch einmal",
    too_often: "Das wurde in kurzer Zeit zu oft verlangt. Es wurde nichts geändert. Bitte versuchen Sie es in ein paar Minuten \
                noch einmal.",
    away: "Das ist im Moment nicht möglich. Es wurde nichts geändert. Bitte versuchen Sie es in ein paar Minuten noch einmal.",
};

const FRENCH: Words = Words {
    ask_title: "Ouvrir vos e-mails sans être suivi",
    ask: "Les e-mails de cet expéditeur contiennent une petite image. Quand vous en ouvrez un, l’image est chargée, et \
          l’expéditeur peut voir que c’était vous, et quand. Vous pouvez désactiver cela ici, pour tous les e-mails de cet \
          expéditeur, y compris ceux que vous avez déjà reçus. Vous continuerez à recevoir les e-mails.",
    opt_out: "Ne pas enregistrer mes ouvertures",
    out_title: "Vos ouvertures ne sont plus enregistrées",
    out: "Désormais, l’expéditeur ne voit plus si vous ouvrez ses e-mails, y compris ceux que vous avez déjà reçus. Vous \
          continuerez à recevoir les e-mails.",
    undo: "Annuler : enregistrer de nouveau mes ouvertures",
    in_title: "Vos ouvertures sont de nouveau enregistrées",
    in_again: "Désormais, l’expéditeur voit de nouveau quand vous ouvrez ses e-mails.",
    not_valid_title: "Ce lien n’est pas valide",
    not_valid: "Il a peut-être été coupé en chemin. Ouvrez de nouveau le lien dans l’e-mail, ou écrivez à l’expéditeur.",
    later_title: "Veuillez réessayer plus tard",
    too_often: "Trop de demandes en peu de temps. Rien n’a été modifié. Veuillez réessayer dans quelques minutes.",
    away: "Ce n’est pas possible pour le moment. Rien n’a été modifié. Veuillez réessayer dans quelques minutes.",
};

const ITALIAN: Words = Words {
    ask_title: "Aprire le e-mail senza essere registrati",
    ask: "Le e-mail di questo mittente contengono una piccola immagine. Quando ne apre una, l’immagine viene caricata e il \
          mittente può vedere che è stato Lei, e quando. Qui può disattivarlo: per tutte le e-mail di questo mittente, anche \
          quelle che ha già ricevuto. Continuerà a ricevere le e-mail.",
    opt_out: "Non registrare le mie aperture",
    out_title: "Le Sue aperture non vengono più registrate",
    out: "D’ora in poi il mittente non vede più se Lei apre le e-mail, anche quelle che ha già ricevuto. Continuerà a ricevere \
          le e-mail.",
    undo: "Annulla: registrare di nuovo le mie aperture",
    in_title: "Le Sue aperture vengono di nuovo registrate",
    in_again: "D’ora in poi il mittente vede di nuovo quando Lei apre le e-mail.",
    not_valid_title: "Questo link non è valido",
    not_valid: "Forse una parte è andata persa. Apra di nuovo il link nell’e-mail, oppure scriva al mittente.",
    later_title: "Riprovi più tardi",
    too_often: "Troppe richieste in poco tempo. Non è stato modificato nulla. Riprovi tra qualche minuto.",
    away: "Al momento non è possibile. Non è stato modificato nulla. Riprovi tra qualche minuto.",
};

const SPANISH: Words = Words {
    ask_title: "Abrir sus correos sin quedar registrado",
    ask: "Los correos de este remitente contienen una pequeña imagen. Cuando abre uno, la imagen se carga y el remitente puede \
          ver que fue usted, y cuándo. Aquí puede desactivarlo: para todos los correos de este remitente, también los que ya \
          tiene. Seguirá recibiendo los correos.",
    opt_out: "No registrar mis aperturas",
    out_title: "Sus aperturas ya no se registran",
    out: "A partir de ahora el remitente no ve si usted abre los correos, tampoco los que ya tiene. Seguirá recibiendo los \
          correos.",
    undo: "Deshacer: volver a registrar mis aperturas",
    in_title: "Sus aperturas se registran de nuevo",
    in_again: "A partir de ahora el remitente vuelve a ver cuándo abre usted los correos.",
    not_valid_title: "Este enlace no es válido",
    not_valid: "Quizá se perdió una parte por el camino. Abra de nuevo el enlace en el correo o escriba al remitente.",
    later_title: "Inténtelo de nuevo más tarde",
    too_often: "Se pidió demasiadas veces en poco tiempo. No se cambió nada. Inténtelo de nuevo dentro de unos minutos.",
    away: "No es posible en este momento. No se cambió nada. Inténtelo de nuevo dentro de unos minutos.",
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reader_gets_the_language_they_like_best_of_those_there_are() {
        for (accepted, tag) in [
            ("", "en"),
            ("de", "de"),
            ("DE-at", "de"),
            ("pt-BR, fr;q=0.8, en;q=0.7", "fr"),
            ("en;q=0.5,it;q=0.9", "it"),
            ("es-419,es;q=0.9", "es"),
            ("de;q=0, fr;q=0.001", "fr"),
            ("de;q=nan, fr;q=inf, it;q=-1, es;q=2", "en"),
            ("de;q=x, es;q=0.1", "es"),
            ("*", "en"),
            ("deu, german", "en"),
            ("de;q=1;q=0", "de"),
            (";;;,,,===", "en"),
        ] {
            assert_eq!(Language::best(accepted).tag(), tag, "{accepted}");
        }
        assert_eq!(Language::best(&format!("{}de", "x,".repeat(ENTRIES_MAX))).tag(), "en", "the rest is not looked at");
    }

    proptest! {
        #[test]
        fn any_wish_is_read_without_a_panic(accepted: String) {
            Language::best(&accepted);
        }
    }
}
