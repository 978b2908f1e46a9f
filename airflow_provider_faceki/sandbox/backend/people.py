# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Generate the invented people of the records.

A test can replace fields of a person by known words, to search logs and XComs for these words afterwards.

Source of the field names: https://docs.faceki.com/api-integration/verification-apis/fetch-records
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_provider_faceki.sandbox.backend.workflows import DRIVING_LICENSE, ID_CARD, PASSPORT

_FIRST = ("Amaltea", "Borisal", "Ceciliane", "Dariolo", "Elwinia", "Faridun", "Gudrune", "Hakimel")
_LAST = ("Testwell", "Probemann", "Muestrano", "Fantasio", "Inventari", "Beispiel", "Sampleton", "Nemoskyj")
# The country must not exist. ISO 3166 reserves the codes XA-XZ and QM-QZ for private use. The specimen documents in
# ICAO 9303 are issued by "Utopia" with the code UTO.
_NATION = {"nationality": "Utopian", "nationality_iso": "XU", "nationality_iso2": "UTO"}
_ISSUER = {"issuer": "Utopia", "issuer_iso": "XU", "issuer_iso2": "UTO"}
_KINDS = {
    ID_CARD: ("I", "Identity Card"),
    PASSPORT: ("P", "Passport"),
    DRIVING_LICENSE: ("D", "Driving License"),
}


@dataclass(frozen=True)
class Person:
    """An invented person.

    :param born: the day, the month and the year of birth, as texts.
    :param number: the document number.
    """

    first_name: str
    last_name: str
    gender: str
    born: tuple[str, str, str]
    number: str

    @property
    def full_name(self) -> str:
        return f"{self.first_name} {self.last_name}"

    def age(self, now: float) -> int:
        """Return the age in full years.

        :param now: the time of the verification in seconds since the epoch.
        """
        day, month, year = map(int, self.born)
        today = datetime.fromtimestamp(now, UTC)
        return today.year - year - ((today.month, today.day) < (month, day))


def invent(seed: str, overrides: Mapping[str, str]) -> Person:
    """Generate a person.

    :param seed: a text that determines the person. The same seed always generates the same person.
    :param overrides: values that replace generated fields, by field name.
    """
    dice = hashlib.sha256(seed.encode()).digest()
    year = 1950 + dice[2] % 50
    return Person(
        first_name=overrides.get("first_name", _FIRST[dice[0] % len(_FIRST)]),
        last_name=overrides.get("last_name", _LAST[dice[1] % len(_LAST)]),
        gender=overrides.get("gender", "FM"[dice[3] % 2]),
        born=(f"{1 + dice[4] % 28:02}", f"{1 + dice[5] % 12:02}", str(year)),
        number=overrides.get("document_number", f"UT{int.from_bytes(dice[6:10]) % 10_000_000:07}"),
    )


def document_data(
    person: Person, kind: str, reference: str, passed: bool, now: float, overrides: Mapping[str, str]
) -> dict[str, object]:
    """Return one element of the record field `document_data`.

    Days, months, years and the age are texts, as in FACEKI's documented example.

    :param kind: the kind of the document, for example `ID Card`.
    :param reference: the value of the field `reference`.
    :param passed: whether the document was accepted.
    :param now: the time of the verification in seconds since the epoch.
    :param overrides: values that replace generated fields, by field name.
    """
    day, month, year = person.born
    code, name = _KINDS[kind]
    made: dict[str, object] = {
        "reference": reference,
        "full_name": person.full_name,
        "first_name": person.first_name,
        "local_name": "",
        "last_name": person.last_name,
        "middle_name": "",
        **_NATION,
        **_ISSUER,
        "gender": person.gender,
        "dob": f"{year}-{month}",
        "age": str(person.age(now)),
        "expiry": "2039-06-30",
        "expiryDay": "30",
        "expiryMonth": "06",
        "expiryYear": "2039",
        **dict.fromkeys(("issued", "issuedDay", "issuedMonth", "issuedYear", "documentAdditionalNumber"), ""),
        "document_number": person.number,
        "document_type": code,
        "document_type_full": name,
        "mrz": _mrz(person, code),
        "document_face_match": {"similarity": 99.98 if passed else 41.5, "confidence": 99.99},
        "passed": passed,
        "date_of_birth": f"{year}-{month}-{day}",
        "date_of_birth_day": day,
        "date_of_birth_month": month,
        "date_of_birth_year": year,
    }
    return {**made, **overrides}


def confidence(document: Mapping[str, object]) -> dict[str, object]:
    """Return the confidence of the text recognition for each field of a document."""
    keys = (key for key in document if key not in ("reference", "document_face_match", "passed"))
    sure = dict.fromkeys(keys, 0.99)
    return {"reference": document["reference"], **sure, "placeOfBirth": 0.0, "personal_number": 0.0}


def _mrz(person: Person, code: str) -> str:
    """Return a machine-readable zone as three lines joined with ^.

    The zone has no check digits, so that it is not a valid zone.
    """
    day, month, year = person.born
    names = f"{person.last_name}<<{person.first_name}".upper().replace(" ", "<")
    return (
        f"{code}<UTO{person.number}".ljust(30, "<")
        + f"^{year[2:]}{month}{day}<{person.gender}<390630<UTO".ljust(31, "<")
        + "^"
        + names.ljust(30, "<")
    )
