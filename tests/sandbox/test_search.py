"""The search engine: what a document asks for, who sees what, and searches that are kept."""

from __future__ import annotations

import pytest

from .conftest import SESSION, Client

SPACE = 'xmlns:xdat="http://nrg.wustl.edu/security"'
SEARCH = "POST /data/search?format=json"
MR = "xnat:mrSessionData"


def criterion(field: str, how: str, value: str) -> str:
    how = how.replace("<", "&lt;")
    return (
        f"<xdat:criteria><xdat:schema_field>{field}</xdat:schema_field>"
        f"<xdat:comparison_type>{how}</xdat:comparison_type>"
        f"<xdat:value>{value}</xdat:value></xdat:criteria>"
    )


def document(root: str, fields: list[str], *where: str, method: str = "AND") -> str:
    shown = "".join(
        f"<xdat:search_field><xdat:element_name>{field.partition('/')[0]}</xdat:element_name>"
        f"<xdat:field_ID>{field.partition('/')[2]}</xdat:field_ID>"
        f"<xdat:sequence>{number}</xdat:sequence></xdat:search_field>"
        for number, field in enumerate(fields)
    )
    return (
        f'<xdat:bundle {SPACE} brief-description="kept"><xdat:root_element_name>{root}'
        f"</xdat:root_element_name>{shown}"
        f'<xdat:search_where method="{method}">{"".join(where)}</xdat:search_where></xdat:bundle>'
    )


@pytest.fixture
async def filled(xnat: Client) -> Client:
    """Three MR sessions and one CT of two subjects, in two projects."""
    await xnat("PUT /data/projects/P/subjects/S?gender=female&yob=1980")
    for line in (
        "PUT /data/projects/P/subjects/S/experiments/E2?xsiType=xnat:mrSessionData&date=2024-05-01",
        "PUT /data/projects/P/subjects/S/experiments/C?xsiType=xnat:ctSessionData&date=2024-05-02",
        "PUT /data/projects/Q",
        "PUT /data/projects/Q/subjects/T?gender=male&yob=1990",
        "PUT /data/projects/Q/subjects/T/experiments/E3?xsiType=xnat:mrSessionData&date=2023-01-01",
    ):
        assert (await xnat(line)).status in (200, 201)
    return xnat


async def labels(client: Client, *where: str, root: str = MR, method: str = "AND") -> set[str]:
    body = document(root, [f"{root}/LABEL"], *where, method=method)
    return {row["label"] for row in (await client(SEARCH, body, kind="text/xml")).rows}


async def test_a_search_shows_fields_of_its_type_and_of_the_subject(filled: Client) -> None:
    fields = [f"{MR}/LABEL", f"{MR}/DATE", "xnat:subjectData/GENDER_TEXT", f"{MR}/project"]
    body = document(MR, fields, criterion(f"{MR}/LABEL", "=", "E3"))
    answer = await filled(SEARCH, body, kind="text/xml")
    assert answer.json()["ResultSet"]["totalRecords"] == "1"
    assert answer.rows == [
        {
            "label": "E3",
            "date": "2023-01-01",
            "xnat_subjectdata_gender_text": "male",
            "project": "Q",
        }
    ]
    csv = (await filled("POST /data/search?format=csv", body, kind="text/xml")).text
    assert csv.splitlines()[0] == "label,date,xnat_subjectdata_gender_text,project"


async def test_criteria_compare_and_are_joined(filled: Client) -> None:
    project = criterion(f"{MR}/PROJECT", "=", "P")
    young = criterion("xnat:subjectData/YOB", ">", "1985")
    early = criterion(f"{MR}/DATE", "<=", "2024-02-28")
    like = criterion(f"{MR}/LABEL", "LIKE", "e%")
    assert await labels(filled) == {"E", "E2", "E3"}
    assert await labels(filled, project) == {"E", "E2"}
    assert await labels(filled, project, early) == {"E"}
    assert await labels(filled, young) == {"E3"}
    assert await labels(filled, young, project, method="OR") == {"E", "E2", "E3"}
    assert await labels(filled, like, criterion(f"{MR}/LABEL", "!=", "E")) == {"E2", "E3"}
    inner = f'<xdat:child_set method="OR">{young}{early}</xdat:child_set>'
    assert await labels(filled, project, inner) == {"E"}


async def test_a_super_type_finds_all_of_its_types(filled: Client) -> None:
    root = "xnat:imageSessionData"
    assert await labels(filled, root=root) == {"E", "E2", "E3", "C"}
    assert await labels(filled, root="xnat:ctSessionData") == {"C"}
    assert await labels(filled, root="xnat:subjectData") == {"S", "T"}


async def test_a_search_finds_only_what_the_caller_may_read(filled: Client, alice: Client) -> None:
    assert await labels(alice) == set()
    # A protected project is seen, not read.
    await filled("PUT /data/projects/P/accessibility/protected")
    assert await labels(alice) == set()
    await filled("PUT /data/projects/Q/users/member/alice")
    assert await labels(alice) == {"E3"}


@pytest.mark.parametrize(
    "body",
    [
        "<xdat:bundle",
        f"<xdat:bundle {SPACE}/>",
        document("xnat:teaData", []),
        document(MR, [f"{MR}/LABEL"], criterion(f"{MR}/LABEL", "SOUNDS", "x")),
        document(MR, [f"{MR}/LABEL"], criterion("LABEL", "=", "x")),
    ],
)
async def test_a_search_that_makes_no_sense_is_400(xnat: Client, body: str) -> None:
    assert (await xnat(SEARCH, body, kind="text/xml")).status == 400


async def test_a_search_is_kept_shown_run_and_deleted(filled: Client, alice: Client) -> None:
    body = document(MR, [f"{MR}/LABEL"], criterion(f"{MR}/PROJECT", "=", "P"))
    saved = "/data/search/saved/mine"
    assert (await filled(f"GET {saved}")).status == 404
    assert (await filled(f"PUT {saved}?inbody=true", body, kind="text/xml")).status == 200
    row = (await filled("GET /data/search/saved?format=json")).rows[0]
    assert (row["id"], row["brief_description"], row["root_element_name"]) == ("mine", "kept", MR)
    assert (await filled(f"GET {saved}")).text == body
    assert (await filled(f"GET {saved}?format=json")).status == 404
    assert len((await filled(f"GET {saved}/results?format=json")).rows) == 2
    await filled(f"DELETE {SESSION}")
    assert len((await filled(f"GET {saved}/results?format=json")).rows) == 1
    assert (await alice("GET /data/search/saved?format=json")).rows == []
    assert (await alice(f"GET {saved}/results?format=json")).status == 403
    for _ in range(2):
        assert (await filled(f"DELETE {saved}")).status == 200
    assert (await filled("GET /data/search/saved?format=json")).rows == []
