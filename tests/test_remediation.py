"""The hints: which candidates, which remedy for which kind of call, and nothing of the server's let through."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crm_guard.remediation import (
    ApprovalCase,
    Family,
    candidates,
    hint_for_candidates,
    hint_for_case,
    hint_for_lock,
    hint_for_recheck,
)

REJECTED, RECORD, IMAGE, PROCESS, REVIEW = ApprovalCase
PHOTO_READ, PHOTO_WRITE = Family.PHOTO_READ, Family.PHOTO_WRITE
ALL_PAIRS = list(product(ApprovalCase, Family))
LOCKING = "/crm/v8/Leads/111112000000075003/Locking_Information__s"


class TestCandidates:
    @pytest.mark.parametrize(
        ("family", "expected"),
        [
            (Family.UPDATE, (REJECTED, RECORD, PROCESS)),
            (Family.DELETE, (REJECTED, RECORD, PROCESS)),
            (Family.CONVERT, (REJECTED, RECORD, PROCESS)),
            (Family.OTHER, (REJECTED, RECORD, PROCESS)),
            (Family.APPROVAL_ONLY, (PROCESS,)),
            (PHOTO_READ, (IMAGE, RECORD, REJECTED, PROCESS)),
            (PHOTO_WRITE, (IMAGE, RECORD, REJECTED, PROCESS)),
        ],
    )
    def test_not_approved_lists_the_likeliest_case_of_each_kind_of_call_first(self, family, expected):
        assert candidates("NOT_APPROVED", family) == expected

    @pytest.mark.parametrize("family", Family)
    def test_not_reviewed_is_the_review_process_on_every_call(self, family):
        assert candidates("NOT_REVIEWED", family) == (REVIEW,)

    @pytest.mark.parametrize("code", ["RECORD_LOCKED", "not_approved", "NOT_APPROVED ", ""])
    def test_other_codes_have_no_candidates_and_no_hint(self, code):
        assert candidates(code, Family.UPDATE) == ()
        assert hint_for_candidates(code, Family.UPDATE, state="approved") == ""


class TestHintForCase:
    @pytest.mark.parametrize(("case", "family"), ALL_PAIRS)
    def test_every_pair_has_two_sentences_that_end_with_what_not_to_do(self, case, family):
        first, second, *rest = re.split(r"(?<=\.) (?=[A-Z])", hint_for_case(case, family))
        assert 60 < len(first) < 230
        assert (second, rest) == ("A retry before that only fails again.", [])

    @pytest.mark.parametrize(("case", "family"), ALL_PAIRS)
    def test_an_inferred_case_says_probably_once_and_differs_in_nothing_else(self, case, family):
        plain, hedged = hint_for_case(case, family), hint_for_case(case, family, probable=True)
        assert "probably" not in plain
        assert hedged.replace("probably ", "", 1) == plain != hedged

    @pytest.mark.parametrize(
        ("family", "offers_upload"),
        [(family, family not in {Family.DELETE, PHOTO_WRITE}) for family in Family],
    )
    def test_another_image_is_a_remedy_only_where_it_can_work(self, family, offers_upload):
        assert ("upload another image, or delete" in hint_for_case(REJECTED, family)) is offers_upload

    @pytest.mark.parametrize(
        ("case", "family", "wording"),
        [
            (REJECTED, Family.DELETE, "uploading another image does not make it deletable"),
            (REJECTED, PHOTO_WRITE, "does not accept this change to it"),
            (RECORD, Family.UPDATE, "do not upload or delete images until then"),
            (IMAGE, PHOTO_READ, "repeat the download after that decision, and do not replace or delete"),
            (PROCESS, Family.CONVERT, "approved or rejected in CRM (My Jobs), and convert the lead once"),
            (PROCESS, Family.DELETE, "delete the record once it is approved"),
            (REVIEW, Family.UPDATE, "have its reviewer approve or reject it"),
        ],
    )
    def test_the_hint_names_the_remedy_in_terms_of_the_call(self, case, family, wording):
        assert wording in hint_for_case(case, family)

    @pytest.mark.parametrize(
        ("state", "case", "wording"),
        [
            ("approval_process_pending", PROCESS, "ordinary approval process"),
            ("approval_process_rejected", PROCESS, "An approver probably rejected"),
            ("webform_unapproved", PROCESS, "queue of a web form (webform_unapproved)"),
            ("webform_invalid", PROCESS, "queue of a web form (webform_invalid)"),
            ("webform_double_optin", PROCESS, "confirms the double opt-in"),
            ("email_parser_waiting", PROCESS, "held in the approval queue of the e-mail parser"),
            ("email_parser_rejected", PROCESS, "rejected in the approval queue of the e-mail parser"),
            ("review_process_rejected", REVIEW, "A reviewer probably rejected"),
        ],
    )
    def test_a_state_names_the_queue_in_which_the_record_sits(self, state, case, wording):
        assert wording in hint_for_case(case, Family.UPDATE, state=state, probable=True)

    @pytest.mark.parametrize("state", ["approved", "webform_{again}\n", "review_process_rejected", ""])
    def test_a_state_of_another_case_or_none_at_all_changes_nothing(self, state):
        assert hint_for_case(PROCESS, Family.UPDATE, state=state) == hint_for_case(PROCESS, Family.UPDATE)


class TestHintForCandidates:
    @pytest.mark.parametrize("family", [f for f in Family if len(candidates("NOT_APPROVED", f)) > 1])
    def test_every_candidate_is_numbered_in_order_with_its_state_and_remedy(self, family):
        hint = hint_for_candidates("NOT_APPROVED", family)
        starts = [hint.index(f"({n}) ") for n, _ in enumerate(candidates("NOT_APPROVED", family), 1)]
        assert starts == sorted(starts)
        assert hint.count("A retry before that only fails again.") == 1
        for case, start in zip(candidates("NOT_APPROVED", family), starts, strict=True):
            remedy = hint_for_case(case, family).removesuffix(" A retry before that only fails again.")
            assert hint.index(remedy) > start

    def test_the_list_says_how_to_tell_its_cases_apart(self):
        hint = hint_for_candidates("NOT_APPROVED", Family.UPDATE)
        assert "$approval_state" in hint.partition("(1)")[0]
        assert "diagnose" in hint.partition("(1)")[0]
        assert "(1) zia_vision_rejected: Zia rejected" in hint

    @pytest.mark.parametrize(
        ("code", "family", "case"),
        [("NOT_APPROVED", Family.APPROVAL_ONLY, PROCESS), ("NOT_REVIEWED", Family.DELETE, REVIEW)],
    )
    def test_a_sole_candidate_reads_like_its_case(self, code, family, case):
        assert hint_for_candidates(code, family) == hint_for_case(case, family)

    @pytest.mark.parametrize(
        ("state", "wording"),
        [
            ("approved", "the same call may work at once"),
            ("merge_pending", "wait until it ends and look the record up again"),
            ("brand_new", "$approval_state, brand_new, does not determine"),
            ("<b>\n", "an unrecognised value"),
        ],
    )
    @pytest.mark.parametrize("family", [Family.UPDATE, Family.APPROVAL_ONLY])
    def test_a_state_that_settles_nothing_is_told_instead_of_asked_for(self, state, wording, family):
        hint = hint_for_candidates("NOT_APPROVED", family, state=state)
        assert wording in hint
        assert "read it with Get Records" not in hint
        assert "waits in an approval process" in hint


class TestHintForLock:
    @staticmethod
    def lock(action, *, retryable=False, family=Family.UPDATE, **where):
        return hint_for_lock(action, retryable=retryable, family=family, **where)

    def test_a_zia_lock_ends_by_itself_and_is_a_matter_of_budget(self):
        hint = self.lock("zia_vision_processing", retryable=True, family=Family.DELETE)
        assert "ends by itself: delete the record later, or raise `timeout` and `attempts`" in hint
        assert "Do not upload or delete images meanwhile" in hint

    def test_a_zia_lock_that_the_guard_was_told_not_to_wait_for_names_the_setting(self):
        assert 'add "zia_vision_processing" to `retry_actions`' in self.lock("zia_vision_processing")

    def test_the_record_locking_feature_has_calls_that_tell_and_lift_its_lock(self):
        hint = self.lock("record_locking", module="Leads", record_id="111112000000075003")
        assert f"GET {LOCKING} shows who locked it" in hint
        assert f"DELETE {LOCKING}/{{lockId}} removes a manual lock" in hint
        assert "retrying on a timer does not help" in hint

    @pytest.mark.parametrize("family", Family)
    def test_only_a_write_of_fields_can_meet_the_lock_of_a_linked_record(self, family):
        assert ("one that it links to" in self.lock("record_locking", family=family)) is (family is Family.UPDATE)

    @pytest.mark.parametrize(("version", "shown"), [("v2.1", "v2.1"), ("v8/../..", "v8"), ("", "v8")])
    def test_the_version_of_the_calls_is_the_given_one_if_it_is_one(self, version, shown):
        hint = self.lock("record_locking", module="Leads", record_id="1", version=version)
        assert f"GET /crm/{shown}/Leads/1/" in hint

    @pytest.mark.parametrize("action", [None, ""])
    def test_a_lock_without_a_name_has_the_remedies_of_both_kinds(self, action):
        hint = self.lock(action, module="Leads", record_id="111112000000075003")
        assert "merge of duplicates" in hint
        assert f"GET {LOCKING}" in hint

    def test_an_unknown_lock_is_named_with_the_setting_that_would_make_the_guard_wait(self):
        hint = self.lock("blueprint.step-2")
        assert "locked by blueprint.step-2, which is not in `retry_actions`" in hint
        assert 'add "blueprint.step-2" to `retry_actions`' in hint

    def test_a_merge_is_named_and_how_to_have_the_guard_wait_for_it(self):
        hint = self.lock("merge")
        assert "a merge of duplicates: wait until it ends" in hint
        assert 'add "merge" to `retry_actions`' in hint
        assert "Locking_Information__s" not in hint

    def test_a_lock_that_the_user_made_retryable_asks_for_more_time(self):
        hint = self.lock("merge", retryable=True)
        assert "repeat the call later, or raise `timeout`" in hint

    @given(
        hostile=st.text(min_size=1).filter(lambda text: not re.fullmatch(r"[A-Za-z0-9_.-]+", text)),
        retryable=st.booleans(),
    )
    @example(hostile="zia_vision_processing\n", retryable=False)
    @example(hostile="{action.__class__}", retryable=True)
    @example(hostile="a" * 101, retryable=False)
    @example(hostile="../../users", retryable=False)
    def test_nothing_of_a_hostile_answer_shows(self, hostile, retryable):
        harmless = "an unrecognised action"
        assert harmless in self.lock(hostile, retryable=retryable)
        for action in (None, "record_locking"):
            hint = self.lock(action, module=hostile, record_id=hostile, version=hostile)
            assert hint == self.lock(action)
            assert "/crm/v8/{module}/{id}/" in hint

    @pytest.mark.parametrize("record_id", ["٣٤", "²", "1 ", "1\n", "+1", "1_0", "1" * 26])
    def test_an_id_that_only_int_would_take_is_left_out(self, record_id):
        assert "/Leads/{id}/" in self.lock("record_locking", module="Leads", record_id=record_id)


def test_a_check_that_has_started_again_is_worth_a_try_soon():
    assert "convert the lead in a minute or two, and do not upload" in hint_for_recheck(Family.CONVERT)
