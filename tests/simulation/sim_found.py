"""Which seed has found which of the bugs that are put in on purpose, as their tests print it.

Where the simulation draws otherwise than it did, another seed does: a bug whose seed does not find it any
more is looked for again, which takes longer, and its new seed is printed.
"""

from typing import Final

FOUND: Final[dict[str, tuple[int, ...]]] = {
    "a_call_does_not_wait_for_its_host_tools": (476,),
    "a_call_is_made_again_with_half_an_input": (227,),
    "a_call_that_never_ran_is_said_to_have_run": (556,),
    "a_call_waits_for_itself": (120,),
    "a_map_ends_before_its_last_result": (34,),
    "a_map_gives_its_results_as_they_come": (31,),
    "a_map_is_left_while_its_calls_run": (17,),
    "a_map_reads_too_far_ahead": (15,),
    "a_running_call_waits_too_long": (12,),
    "a_session_of_a_hint_is_lost": (41,),
    "a_worker_keeps_what_was_left_in_a_session": (89,),
    "an_answer_does_not_clear_a_suspect": (20,),
    "an_id_stays_taken": (50,),
    "the_queue_outlives_the_pool": (40,),
}
