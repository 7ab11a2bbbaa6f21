"""Sends an email with a pixel over plain SMTP: text for those who read text, HTML with the image for the others."""

import smtplib
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

import links


def message(sender, recipient, subject, text, body_html, pixel_url):
    """An email of two parts. body_html ends with </body>, as emails do."""
    email = EmailMessage()
    email["From"], email["To"], email["Subject"] = sender, recipient, subject
    email["Date"], email["Message-ID"] = formatdate(localtime=False), make_msgid(domain=sender.rsplit("@", 1)[-1])
    email.set_content(text)
    html, end = body_html.rsplit("</body>", 1)
    # Behind the text, so that it is fetched last and delays nothing.
    email.add_alternative(f"{html}{links.image_tag(pixel_url)}</body>{end}", subtype="html")
    return email


def send(host, port, emails):
    with smtplib.SMTP(host, port, timeout=30) as server:
        # For a server on another machine, before all else:
        # server.starttls(context=ssl.create_default_context())
        # server.login(user, password)
        for email in emails:
            server.send_message(email)
