"""Every option of the table: all its spellings mean the same, the command line goes before the environment, and what it
changes can be seen. A new option needs one row in EFFECTS.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llamabox.machine import processors
from llamabox.options import OPTIONS, Option
from llamabox.options.commandline import parse
from llamabox.options.values.weights import DENSE, EXPERTS
from tests import observed
from tests.observed import Observer
from tests.options.test_commandline import FIRST_CPU, values_of


@dataclass(frozen=True)
class Shown:
    """By a test below tests/, the file of which names the option or the field that it sets."""

    test: str


@dataclass(frozen=True)
class Reaches:
    """With the words, the observer sees these values; without them, others. A text that C knows is its constant."""

    observer: Observer
    words: str
    values: dict[str, Any]
    without: str = ""


def row(observer: Observer, words: str, without: str = "", **values: Any) -> Reaches:
    return Reaches(observer, words, values, without)


context, model_file, threads = observed.context, observed.model_file, observed.threads
generation, samplers, listener = observed.generation, observed.samplers, observed.listener
images, told = observed.images, observed.text_worker
FORM, LORA = "e2e/texts/test_structured_output.py", "e2e/texts/test_lora.py"
LOADER, SERVER, THREADS = (
    "workers/text/loading/test_loader.py",
    "e2e/command/test_server_options.py",
    "e2e/command/test_threads.py",
)
CHATS = "server/generation/test_thinking.py"
PROJECTOR = "workers/text/loading/test_projector.py"
RPC = "lending/test_listener.py"
METRICS = "e2e/command/test_metrics.py"
CPU = f"{1 << FIRST_CPU:x}"

EFFECTS: dict[str, Shown | Reaches] = {
    # general
    "--usage": Shown("e2e/command/test_process.py::test_informs_and_exits_0"),
    "--version": Shown("e2e/command/test_process.py::test_informs_and_exits_0"),
    "--system-info": Shown("e2e/command/test_process.py::test_informs_and_exits_0"),
    "--list-devices": Shown("e2e/command/test_process.py::test_informs_and_exits_0"),
    "--log-verbose": Shown(f"{SERVER}::test_the_log_in_colours_and_with_prompts"),
    "--log-verbosity": Shown(f"{SERVER}::test_verbosity"),
    "--log-colors": Shown(f"{SERVER}::test_the_log_in_colours_and_with_prompts"),
    "--hang-timeout": Shown("e2e/faults/test_hangs.py::test_stopped_while_streams_run_and_while_idle"),
    "--log-json": Shown("test_cli.py::test_with_json_logs_everything_on_stderr_is_json"),
    "--native": Shown("test_cli.py::test_missing_native_libraries"),
    # server
    "--host": Shown(f"{SERVER}::test_a_key_a_template_and_a_socket_from_files"),
    "--port": Shown("e2e/command/test_process.py::test_a_taken_port_is_named"),
    "--reuse-port": Shown("server/test_run.py::test_a_port_that_is_shared_by_those_that_want_it"),
    "--sse-ping-interval": row(observed.reply, "--sse-ping-interval 3", ping_interval=3),
    "--responses-store": Shown(
        "server/api/responses/test_store.py::test_each_key_has_responses_of_its_own_and_without_a_store_there_are_none"
    ),
    "--timeout": row(listener, "-to 3", stall_timeout=3),
    "--threads-http": Shown("server/test_run.py::test_blocking_work_has_as_many_threads_as_were_asked_for"),
    "--conn-idle": Shown("e2e/command/test_process.py::test_a_silent_clients_next_probe_is_due_within_conn_idle"),
    "--conn-keepalive": row(listener, "--conn-keepalive 3", keep_alive_timeout=3),
    "--max-body": Shown("e2e/faults/test_faults.py::test_a_body_over_the_limit_is_cut_off"),
    "--max-bodies": Shown("server/http/test_request_body.py::test_unfinished_bodies_share_one_budget"),
    "--max-connections": Shown("server/http/test_request_body.py::test_more_connections_than_are_taken"),
    "--ssl-key-file": Shown("server/listening/test_tls.py::test_a_client_that_checks_the_certificate_is_served"),
    "--ssl-cert-file": Shown("server/listening/test_tls.py::test_a_client_that_checks_the_certificate_is_served"),
    "--api-prefix": row(observed.routes, "--api-prefix a/b", health="/a/b/health"),
    "--allowed-hosts": row(observed.routes, "--allowed-hosts a.example", hosts=("a.example",)),
    "--cors-origins": row(observed.routes, "--cors-origins localhost", origins=("localhost",)),
    "--model": Shown("e2e/faults/test_model_files.py::test_one_clear_line_and_exit_1"),
    "--alias": Shown(f"{SERVER}::test_alias_is_the_models_name"),
    "--seed": Shown(f"{SERVER}::test_seed_and_keep_are_every_requests"),
    "--lora": Shown(f"{LORA}::test_the_command_lines_scales_hold_until_others_are_posted"),
    "--lora-scaled": Shown(f"{LORA}::test_the_command_lines_scales_hold_until_others_are_posted"),
    "--lora-init-without-apply": Shown(f"{LORA}::test_posted_scales_outlive_a_worker_that_dies"),
    "--no-slots": row(observed.hosted, "--slots --no-slots", "--slots", enable_slots=False),
    "--slots": Shown("server/http/test_errors.py::test_features_that_are_off_name_their_flag"),
    "--metrics": Shown(f"{METRICS}::test_counters_are_the_sums_over_the_timings_and_outlive_the_worker"),
    "--embeddings": Shown("e2e/embeddings/test_embeddings.py::test_without_pooling_each_token_has_its_vector"),
    "--embd-normalize": Shown("server/api/embeddings/test_format.py::test_how_vectors_are_scaled"),
    "--rerank": Shown("options/test_commandline.py::test_reranking_opens_the_vectors_too_and_decides_the_pooling"),
    "--pooling": Shown("e2e/embeddings/test_embeddings.py::test_without_pooling_each_token_has_its_vector"),
    "--infill": Shown("e2e/texts/test_infill.py::test_layouts"),
    "--slot-save-path": Shown("e2e/texts/test_slot_files.py::test_saved_restored_and_erased_over_a_restart"),
    "--api-key": row(observed.routes, "--api-key one", keys=("one",)),
    "--api-key-file": Shown(f"{SERVER}::test_a_key_a_template_and_a_socket_from_files"),
    # the model
    "--gpu-layers": row(model_file, "-ngl 3", n_gpu_layers=3),
    "--split-mode": row(model_file, "-sm row", split_mode="LLAMA_SPLIT_MODE_ROW"),
    "--tensor-split": row(model_file, "-ts 3,1", tensor_split=(3.0, 1.0)),
    "--device": Shown("lending/test_split.py::test_shares_and_devices_are_the_users_to_choose"),
    "--rpc": Shown("lending/test_split.py::test_a_model_over_three_machines_says_what_it_says_on_one"),
    "--main-gpu": row(model_file, "-mg 1", main_gpu=1),
    "--override-tensor": row(model_file, "-ot a=CPU,b.c=CPU", tensor_buffers="a=CPU b.c=CPU"),
    "--cpu-moe": row(model_file, "-ot a=CPU -cmoe", tensor_buffers=f"a=CPU {EXPERTS}=CPU"),
    "--n-cpu-moe": row(model_file, "-ncmoe 2", tensor_buffers=rf"blk\.0{EXPERTS}=CPU blk\.1{EXPERTS}=CPU"),
    "--n-cpu-ffn": row(model_file, "-ncffn 1", tensor_buffers=rf"blk\.0{DENSE}=CPU"),
    "--override-kv": row(model_file, "--override-kv a.b=int:3", kv_overrides="a.b"),
    "--control-vector": Shown(f"{LORA}::test_a_control_vector_changes_the_answer_and_at_scale_0_does_not"),
    "--control-vector-scaled": Shown(f"{LORA}::test_a_control_vector_changes_the_answer_and_at_scale_0_does_not"),
    "--control-vector-layer-range": Shown(f"{LORA}::test_a_control_vector_changes_the_answer_and_at_scale_0_does_not"),
    "--mlock": row(model_file, "--mlock", load_mode="LLAMA_LOAD_MODE_MMAP_MLOCK"),
    "--no-host": row(model_file, "--no-host", no_host=True),
    "--check-tensors": row(model_file, "--check-tensors", check_tensors=True),
    "--repack": row(model_file, "--no-repack --repack", "--no-repack", use_extra_bufts=True),
    "--no-repack": row(model_file, "--no-repack", use_extra_bufts=False),
    "--no-mmap": row(model_file, "--no-mmap", load_mode="LLAMA_LOAD_MODE_NONE"),
    "--numa": Shown(f"{LOADER}::test_memory_nodes"),
    "--chat-template": Shown("test_cli.py::test_the_demo_model_is_served_with_chatml_unless_told_otherwise"),
    "--chat-template-file": Shown(f"{SERVER}::test_a_key_a_template_and_a_socket_from_files"),
    # chats
    "--jinja": Shown("options/test_commandline.py::test_chat_templates_are_jinja_in_any_case"),
    "--no-jinja": Shown("options/test_commandline.py::test_chat_templates_are_jinja_in_any_case"),
    "--chat-template-kwargs": Shown(f"{CHATS}::test_variables_of_the_template"),
    "--chat-format": Shown(f"{CHATS}::test_a_form_that_the_user_names"),
    "--reasoning-format": Shown(f"{CHATS}::test_where_thoughts_stand"),
    "--reasoning": Shown(f"{CHATS}::test_whether_and_how_much_is_thought"),
    "--reasoning-effort": Shown(f"{CHATS}::test_whether_and_how_much_is_thought"),
    "--reasoning-budget": Shown(f"{CHATS}::test_the_tokens_of_thoughts"),
    "--reasoning-budget-message": Shown(f"{CHATS}::test_the_tokens_of_thoughts"),
    "--reasoning-preserve": Shown(f"{CHATS}::test_thoughts_of_earlier_turns"),
    "--no-reasoning-preserve": Shown(f"{CHATS}::test_thoughts_of_earlier_turns"),
    "--prefill-assistant": Shown(f"{CHATS}::test_whether_a_last_message_is_continued"),
    "--no-prefill-assistant": Shown(f"{CHATS}::test_whether_a_last_message_is_continued"),
    "--skip-chat-parsing": Shown(f"{CHATS}::test_answers_that_nobody_takes_apart"),
    "--no-skip-chat-parsing": Shown(f"{CHATS}::test_answers_that_nobody_takes_apart"),
    # pictures and sounds
    "--mmproj": Shown(f"{PROJECTOR}::test_the_file_says_what_the_model_takes"),
    "--mmproj-offload": Shown(f"{PROJECTOR}::test_a_gpu_computes_it_unless_told_otherwise"),
    "--no-mmproj-offload": Shown(f"{PROJECTOR}::test_a_gpu_computes_it_unless_told_otherwise"),
    "--mmproj-threads": row(observed.projector, "--mmproj-threads 3", n_threads=3),
    "--image-min-tokens": row(observed.projector, "--image-min-tokens 3", image_min_tokens=3),
    "--image-max-tokens": row(observed.projector, "--image-max-tokens 3", image_max_tokens=3),
    "--media-marker": Shown("server/api/media/test_media_in_prompts.py::test_what_clients_are_told"),
    "--visual-max-image-size": Shown("media/test_media_options.py::test_no_picture_is_larger_than_the_user_wants"),
    "--media-path": Shown("media/test_media_options.py::test_files_are_read_from_the_folder_that_the_user_names"),
    "--media-url": Shown("media/test_media_options.py::test_media_are_fetched_from_the_hosts_that_the_user_names"),
    "--mmproj-cache": row(observed.text_worker, "--mmproj-cache 3", mmproj_cache=3),
    # threads
    "--threads": row(context, "-t 3", n_threads=3),
    "--threads-batch": row(context, "-tb 3", n_threads_batch=3),
    "--cpu-mask": row(threads, f"-C {CPU}", cpus=(FIRST_CPU,)),
    "--cpu-range": row(threads, f"-Cr {FIRST_CPU}-{FIRST_CPU}", cpus=(FIRST_CPU,)),
    "--cpu-strict": Shown(f"{THREADS}::test_strict_gives_each_thread_a_cpu_of_its_own"),
    "--prio": Shown(f"{THREADS}::test_priorities"),
    "--poll": Shown(f"{THREADS}::test_how_long_openmp_spins"),
    "--cpu-mask-batch": row(threads, f"-Cb {CPU}", batch_cpus=(FIRST_CPU,)),
    "--cpu-range-batch": Shown(f"{THREADS}::test_masks_of_decodes_and_of_prompts"),
    "--cpu-strict-batch": row(threads, "--cpu-strict-batch 1", batch_strict_cpu=True),
    "--prio-batch": row(threads, "--prio-batch 2", batch_prio="GGML_SCHED_PRIO_HIGH"),
    "--poll-batch": Shown(f"{THREADS}::test_how_long_openmp_spins"),
    # the context
    "--ctx-size": row(context, "-c 512", n_ctx=512),
    "--context-shift": row(
        observed.text_model, "--no-context-shift --context-shift", "--no-context-shift", context_shift=True
    ),
    "--no-context-shift": row(observed.text_model, "--no-context-shift", context_shift=False),
    "--batch-size": row(context, "-b 100", n_batch=100),
    "--ubatch-size": row(context, "-ub 100", n_ubatch=100),
    "--flash-attn": row(context, "-fa on", "-fa off", flash_attn_type="LLAMA_FLASH_ATTN_TYPE_ENABLED"),
    "--cache-reuse": Shown("e2e/texts/test_cache_reuse.py::test_the_command_line_turns_it_on_for_everybody"),
    "--slot-prompt-similarity": Shown(
        "e2e/texts/test_prefix_reuse.py::test_how_similar_a_slot_must_be_to_be_preferred_to_an_older_one"
    ),
    "--tokens-per-second": Shown("e2e/texts/test_token_rate.py::test_above_the_cap_is_gone"),
    "--parallel": row(context, "-np 3", n_seq_max=3),
    "--kv-unified": row(context, "--kv-unified", kv_unified=True),
    "--kv-unified-per-slot": row(
        observed.text_model, "-np 2 -kvu --kv-unified-per-slot 200", "-np 2 -kvu", n_ctx=200
    ),
    "--no-kv-unified": row(context, "--no-kv-unified", "--kv-unified", kv_unified=False),
    "--op-offload": row(context, "--no-op-offload --op-offload", "--no-op-offload", op_offload=True),
    "--no-op-offload": row(context, "--no-op-offload", op_offload=False),
    "--kv-offload": row(context, "-nkvo -kvo", "-nkvo", offload_kqv=True),
    "--no-kv-offload": row(context, "-nkvo", offload_kqv=False),
    "--cache-type-k": row(context, "-ctk q8_0", type_k="GGML_TYPE_Q8_0"),
    "--cache-type-v": row(context, "-ctv q5_1", type_v="GGML_TYPE_Q5_1"),
    "--swa-full": row(context, "--swa-full", swa_full=True),
    "--rope-scaling": row(context, "--rope-scaling yarn", rope_scaling_type="LLAMA_ROPE_SCALING_TYPE_YARN"),
    "--rope-scale": row(context, "--rope-scale 4", rope_freq_scale=0.25),
    "--rope-freq-base": row(context, "--rope-freq-base 5e4", rope_freq_base=5e4),
    "--rope-freq-scale": row(context, "--rope-freq-scale 0.5", rope_freq_scale=0.5),
    "--yarn-orig-ctx": row(context, "--yarn-orig-ctx 99", yarn_orig_ctx=99),
    "--yarn-ext-factor": row(context, "--yarn-ext-factor 0.5", yarn_ext_factor=0.5),
    "--yarn-attn-factor": row(context, "--yarn-attn-factor 2", yarn_attn_factor=2),
    "--yarn-beta-fast": row(context, "--yarn-beta-fast 8", yarn_beta_fast=8),
    "--yarn-beta-slow": row(context, "--yarn-beta-slow 8", yarn_beta_slow=8),
    # the RPC server
    "--rpc-server-host": Shown(f"{RPC}::test_only_where_it_was_told_to_listen"),
    "--rpc-server-port": Shown(f"{RPC}::test_an_address_that_is_taken"),
    "--rpc-server-main-gpu": Shown(f"{RPC}::test_a_gpu_that_is_not_there"),
    "--rpc-server-reserve-memory": Shown(f"{RPC}::test_a_reserve_is_not_told_of"),
    "--rpc-server-threads": Shown(f"{RPC}::test_so_many_threads_compute"),
    "--rpc-server-cache": Shown("lending/test_cache.py::test_a_tensor_is_sent_once"),
    "--rpc-server-cache-size": Shown("lending/test_cache.py::test_the_folder_does_not_outgrow_its_size"),
    "--rpc-server-allow": Shown(f"{RPC}::test_who_is_not_allowed_is_closed_unread"),
    "--defrag-thold": Shown("options/test_commandline.py::test_what_has_no_effect_any_more_says_so_once"),
    # running
    "--predict": Shown(f"{SERVER}::test_predict_caps_what_is_asked_for"),
    "--keep": Shown(f"{SERVER}::test_seed_and_keep_are_every_requests"),
    "--special": Shown(f"{SERVER}::test_special_tokens_are_rendered_where_asked"),
    "--cache-prompt": Shown(f"{SERVER}::test_no_cache_prompt_computes_anew"),
    "--no-cache-prompt": Shown(f"{SERVER}::test_no_cache_prompt_computes_anew"),
    "--cont-batching": row(observed.text_model, "-cb", "-nocb", cont_batching=True),
    "--no-cont-batching": row(observed.text_model, "-nocb", cont_batching=False),
    "--spm-infill": Shown("e2e/texts/test_infill.py::test_suffix_first"),
    "--warmup": row(told, "--no-warmup --warmup", "--no-warmup", warmup=True),
    # Where texts may be drafted for, a trial decodes whether that would change them.
    "--no-warmup": row(observed.text_model, "--no-warmup --spec off", n_decodes=0),
    # speculation
    "--spec": row(told, "--spec off", spec="off", spec_types=()),
    "--spec-type": row(told, "--spec-type ngram-mod,ngram-cache", spec_types=("text", "lookup"), lookup_ngram_min=1),
    "--spec-default": row(told, "--spec-default", spec_types=("text",)),
    "--spec-draft-n-max": row(told, "--spec-draft-n-max 3", spec_n_max=3),
    "--draft": row(told, "--draft 3", spec_n_max=3),
    "--spec-draft-n-min": row(told, "--spec-draft-n-min 3", spec_n_min=3),
    "--spec-draft-p-min": row(told, "--spec-draft-p-min 0.25", spec_p_min=0.25),
    "--spec-corpus": row(told, "--spec-corpus all", spec_corpus="all"),
    "--lookup-ngram-min": row(told, "--lookup-ngram-min 2", lookup_ngram_min=2),
    "--lookup-cache-static": row(told, "-lcs f", lookup_cache_static="f", lookup_ngram_min=1),
    "--lookup-cache-dynamic": row(told, "-lcd f", lookup_cache_dynamic="f", lookup_ngram_min=1),
    "--model-draft": row(told, "-md f", model_draft="f"),
    "--spec-draft-model": row(told, "--spec-draft-model f", model_draft="f"),
    "--gpu-layers-draft": row(told, "-ngld 3", n_gpu_layers_draft=3),
    "--device-draft": row(told, "-devd GPU1", devices_draft=("GPU1",)),
    "--override-tensor-draft": row(observed.draft_model, "-otd a=CPU", tensor_buffers="a=CPU"),
    "--cpu-moe-draft": row(observed.draft_model, "-cmoed", tensor_buffers=f"{EXPERTS}=CPU"),
    "--n-cpu-moe-draft": row(observed.draft_model, "-ncmoed 1", tensor_buffers=rf"blk\.0{EXPERTS}=CPU"),
    "--cache-type-k-draft": row(told, "-ctkd q8_0", type_k_draft="q8_0"),
    "--cache-type-v-draft": row(told, "-ctvd q5_1", type_v_draft="q5_1"),
    "--threads-draft": row(told, "-td 3", n_threads_draft=3),
    "--threads-batch-draft": row(told, "-tbd 3", n_threads_batch_draft=3),
    # sampling
    "--samplers": row(samplers, "--samplers top_k;temp", order=("penalties", "top_k", "temp_ext", "dist")),
    "--sampling-seq": row(samplers, "--sampling-seq tp", order=("penalties", "temp_ext", "top_p", "dist")),
    "--temp": row(samplers, "--temp 0.5", temp_ext=(0.5, 0, 1)),
    "--top-k": row(samplers, "--top-k 7", top_k=(7,)),
    "--top-p": row(samplers, "--top-p 0.5", top_p=(0.5, 0)),
    "--min-p": row(samplers, "--min-p 0.2", min_p=(0.2, 0)),
    "--xtc-probability": row(samplers, "--xtc-probability 0.3", xtc=(0.3, 0.1, 0, 5)),
    "--xtc-threshold": row(samplers, "--xtc-threshold 0.2", xtc=(0.5, 0.2, 0, 5)),
    "--typical": row(samplers, "--typical 0.5", typical=(0.5, 0)),
    "--top-nsigma": row(samplers, "--top-nsigma 2", top_n_sigma=(2,)),
    "--repeat-last-n": row(samplers, "--repeat-last-n 5", penalties=(5, 1.1, 0, 0)),
    "--repeat-penalty": row(samplers, "--repeat-penalty 1.5", penalties=(64, 1.5, 0, 0)),
    "--presence-penalty": row(samplers, "--presence-penalty 2", penalties=(64, 1.1, 0, 2)),
    "--frequency-penalty": row(samplers, "--frequency-penalty 2", penalties=(64, 1.1, 2, 0)),
    "--penalize-nl": row(samplers, "--penalize-nl", spared=None),
    "--dry-multiplier": row(samplers, "--dry-multiplier 2", dry=(2, 1.75, 2, 512, "\n", ":", '"', "*")),
    "--dry-base": row(samplers, "--dry-base 2", dry=(0.8, 2, 2, 512, "\n", ":", '"', "*")),
    "--dry-allowed-length": row(samplers, "--dry-allowed-length 4", dry=(0.8, 1.75, 4, 512, "\n", ":", '"', "*")),
    "--dry-penalty-last-n": row(samplers, "--dry-penalty-last-n 9", dry=(0.8, 1.75, 2, 9, "\n", ":", '"', "*")),
    "--dry-sequence-breaker": row(samplers, "--dry-sequence-breaker ;", dry=(0.8, 1.75, 2, 512, ";")),
    "--escape": row(
        samplers, r"-e --dry-sequence-breaker \t", r"--no-escape --dry-sequence-breaker \t",
        dry=(0.8, 1.75, 2, 512, "\t"),
    ),
    "--no-escape": row(
        samplers, r"--no-escape --dry-sequence-breaker \t", r"--dry-sequence-breaker \t",
        dry=(0.8, 1.75, 2, 512, r"\t"),
    ),
    "--dynatemp-range": row(samplers, "--dynatemp-range 0.5", temp_ext=(0.8, 0.5, 1)),
    "--dynatemp-exp": row(samplers, "--dynatemp-exp 2", temp_ext=(0.8, 0, 2)),
    "--mirostat": row(samplers, "--mirostat 2", mirostat_v2=(5, 5, 0.1)),
    "--mirostat-lr": row(samplers, "--mirostat 2 --mirostat-lr 0.2", "--mirostat 2", mirostat_v2=(5, 5, 0.2)),
    "--mirostat-ent": row(samplers, "--mirostat 2 --mirostat-ent 6", "--mirostat 2", mirostat_v2=(5, 6, 0.1)),
    "--adaptive-target": row(
        samplers, "--samplers adaptive_p --adaptive-target 0.5", "--samplers adaptive_p", adaptive_p=(0.5, 0.9, 5),
    ),
    "--adaptive-decay": row(
        samplers, "--samplers adaptive_p --adaptive-decay 0.5", "--samplers adaptive_p", adaptive_p=(-1, 0.5, 5),
    ),
    "--grammar": Shown(f"{FORM}::test_a_bad_default_keeps_the_server_from_starting"),
    "--grammar-file": Shown(f"{FORM}::test_defaults_of_the_command_line"),
    "--reverse-prompt": row(generation, "-r ### -r END", stop=("###", "END")),
    "--json-schema-file": Shown("options/test_files.py::test_a_json_schema_in_a_file"),
    "--json-schema": Shown(f"{FORM}::test_defaults_of_the_command_line"),
    "--max-waiting": Shown(f"{SERVER}::test_more_texts_than_may_wait"),
    "--gap-factor": Shown("workers/text/loading/test_loader.py::test_the_gap_that_prompts_may_open"),
    "--ctx-checkpoints": Shown("workers/text/drafting/test_memories.py::test_the_options_limit_checkpoints"),
    "--checkpoint-min-step": Shown("workers/text/drafting/test_memories.py::test_the_options_limit_checkpoints"),
    "--cache-ram": Shown("e2e/texts/test_host_tier.py::test_more_conversations_than_slots"),
    "--ignore-eos": row(observed.sampling, "--ignore-eos", ignore_eos=True),
    "--logit-bias": Shown(f"{SERVER}::test_a_bias_of_the_command_line_is_every_requests"),
    # images
    "--images": Shown("options/test_commandline.py::test_a_server_that_draws_needs_a_model"),
    "--image-max-batch": row(images, "--image-max-batch 3", max_batch=3),
    "--image-max-height": row(images, "--image-max-height 640", max_height=640),
    "--image-max-width": row(images, "--image-max-width 640", max_width=640),
    "--image-guidance": row(images, "--image-guidance 2", guidance=2.0),
    "--image-strength": row(images, "--image-strength 0.5", strength=0.5),
    "--image-sampler": row(images, "--image-sampler lcm", sampler="lcm"),
    "--image-sample-steps": row(images, "--image-sample-steps 3", steps=3),
    "--image-cfg-scale": row(images, "--image-cfg-scale 2", cfg_scale=2.0),
    "--image-schedule": row(images, "--image-schedule karras", schedule="karras"),
    "--image-no-text-encoder-model-offload": row(
        images, "--image-no-text-encoder-model-offload", keep_text_encoder_on_cpu=True
    ),
    "--image-clip-l-model": row(images, "--image-clip-l-model f", clip_l_model="f"),
    "--image-clip-g-model": row(images, "--image-clip-g-model f", clip_g_model="f"),
    "--image-t5xxl-model": row(images, "--image-t5xxl-model f", t5xxl_model="f"),
    "--image-no-vae-model-offload": row(images, "--image-no-vae-model-offload", keep_vae_on_cpu=True),
    "--image-vae-model": row(images, "--image-vae-model f", vae_model="f"),
    "--image-vae-tiling": row(images, "--image-vae-tiling", vae_tiling=True),
    "--image-taesd-model": row(images, "--image-taesd-model f", taesd_model="f"),
    "--image-upscale-model": row(images, "--image-upscale-model f", upscale_model="f"),
    "--image-upscale-repeats": row(images, "--image-upscale-repeats 2", upscale_repeats=2),
    "--image-no-control-net-model-offload": row(
        images, "--image-no-control-net-model-offload", keep_control_net_on_cpu=True
    ),
    "--image-control-net-model": row(images, "--image-control-net-model f", control_net_model="f"),
    "--image-control-strength": row(images, "--image-control-strength 0.5", control_strength=0.5),
    "--image-control-canny": row(images, "--image-control-canny", control_canny=True),
}  # fmt: skip
"""By the last of the option's flags: how its effect is seen."""

SEED = """
    --help --version --system-info --verbose --verbosity --log-colors --host --port --timeout --threads-http --conn-idle
    --conn-keepalive --model --alias --seed --main-gpu --metrics --infill --slots --gpu-layers --split-mode
    --tensor-split --override-kv --chat-template --chat-template-file --slot-save-path --threads --cpu-mask --cpu-range
    --cpu-strict --prio --poll --threads-batch --cpu-mask-batch --cpu-range-batch --cpu-strict-batch --prio-batch
    --poll-batch --ctx-size --no-context-shift --predict --batch-size --ubatch-size --keep --flash-attn --escape
    --no-escape --samplers --sampling-seq --penalize-nl --temp --top-k --top-p --min-p --xtc-probability --xtc-threshold
    --typical --repeat-last-n --repeat-penalty --presence-penalty --frequency-penalty --dry-multiplier --dry-base
    --dry-allowed-length --dry-penalty-last-n --dry-sequence-breaker --dynatemp-range --dynatemp-exp --mirostat
    --mirostat-lr --mirostat-ent --logit-bias --grammar --grammar-file --json-schema
    --rope-scaling --rope-scale --rope-freq-base --rope-freq-scale
    --yarn-orig-ctx --yarn-ext-factor --yarn-attn-factor --yarn-beta-fast --yarn-beta-slow --no-kv-offload
    --cache-prompt --cache-type-k --cache-type-v --defrag-thold --parallel --cont-batching --no-cont-batching --mlock
    --no-mmap --numa --no-warmup --spm-infill --special --slot-prompt-similarity --tokens-per-second --cache-reuse
    --images --image-max-batch --image-max-height --image-max-width --image-guidance --image-strength --image-sampler
    --image-sample-steps --image-cfg-scale --image-schedule --image-no-text-encoder-model-offload --image-clip-l-model
    --image-clip-g-model --image-t5xxl-model --image-no-vae-model-offload --image-vae-model --image-vae-tiling
    --image-taesd-model --image-upscale-model --image-upscale-repeats --image-no-control-net-model-offload
    --image-control-net-model --image-control-strength --image-control-canny
    --lora --lora-scaled --lora-init-without-apply --control-vector --control-vector-scaled --control-vector-layer-range
    --draft --model-draft --gpu-layers-draft --lookup-ngram-min --lookup-cache-static --lookup-cache-dynamic
    --rpc-server-host --rpc-server-port --rpc-server-main-gpu --rpc-server-reserve-memory
    -h -v -lv -to -m -a -s -mg -ngl -sm -ts -t -C -Cr -tb -Cb -Crb -c -n -b -ub -fa -e -l -nkvo -ctk -ctv -dt -np -cb
    -md -ngld -lcs -lcd -nocb -sp -sps -tps --usage --log-verbose --log-verbosity --n-gpu-layers --dry--allowed-length
"""
"""Flags that llama-box's users have in their scripts."""

SEED_ENVIRONMENT = """
    MODEL MODEL_ALIAS THREADS CTX_SIZE N_PARALLEL BATCH UBATCH N_GPU_LAYERS THREADS_HTTP CHAT_TEMPLATE N_PREDICT METRICS
    SLOTS FLASH_ATTN CONT_BATCHING DEFRAG_THOLD HOST PORT CACHE_REUSE DRAFT MODEL_DRAFT N_GPU_LAYERS_DRAFT
    LOOKUP_NGRAM_MIN LOOKUP_CACHE_STATIC LOOKUP_CACHE_DYNAMIC RPC_SERVER_HOST RPC_SERVER_PORT
"""


def key(option: Option) -> str:
    return option.flags[-1]


def spellings(option: Option) -> tuple[str, ...]:
    return option.flags + option.hidden


def test_every_option_has_a_row() -> None:
    assert {key(option) for option in OPTIONS} == set(EFFECTS)


def test_what_scripts_for_llama_box_use_is_there() -> None:
    known = {flag for option in OPTIONS for flag in spellings(option)}
    assert set(SEED.split()) <= known
    assert {f"LLAMA_ARG_{name}" for name in SEED_ENVIRONMENT.split()} <= {option.env for option in OPTIONS}


@pytest.mark.parametrize("option", OPTIONS, ids=key)
def test_all_spellings_mean_the_same(option: Option, tmp_path: Path) -> None:
    words = values_of(option, tmp_path)
    [value, *others] = [parse([flag, *words], {}).values for flag in spellings(option)]
    assert list(value) == [option.dest]
    assert all(other == value for other in others)


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.env], ids=key)
def test_the_environment_counts_where_the_command_line_is_silent(option: Option, tmp_path: Path) -> None:
    assert option.env
    words = values_of(option, tmp_path)
    given = parse([option.flags[0], *words], {}).values
    assert parse([], {option.env: words[0] if words else "1"}).values == given
    assert parse([], {option.env: ""}).values == {}
    against = [other for other in OPTIONS if other.dest == option.dest and other.parse is None]
    for other in against:  # a switch and its opposite
        assert parse([other.flags[0]], {option.env: "1"}).values == {option.dest: other.const}
    assert parse([option.flags[0], *words], {option.env: "0" if option.parse is None else "?"}).values == given


def rows(kind: type[Shown] | type[Reaches]) -> list[Any]:
    found = [(option, EFFECTS.get(key(option))) for option in OPTIONS]
    return [pytest.param(option, effect, id=key(option)) for option, effect in found if isinstance(effect, kind)]


@pytest.mark.parametrize(("option", "effect"), rows(Shown))
def test_the_test_that_shows_it_is_there(option: Option, effect: Shown) -> None:
    source = observed.source_of(effect.test)
    named = (*(f'"{flag}"' for flag in spellings(option)), option.dest.rpartition(".")[2])
    assert any(name in source for name in named), f"{effect.test} says nothing of {key(option)}"


@pytest.mark.parametrize(("option", "effect"), rows(Reaches))
def test_it_reaches_what_acts_on_it(option: Option, effect: Reaches) -> None:
    assert set(spellings(option)) & set(effect.words.split())
    after, before = effect.observer(*effect.words.split()), effect.observer(*effect.without.split())
    for name, value in effect.values.items():
        known = getattr(observed.native().lib, value) if isinstance(value, str) and value.isupper() else value
        assert after[name] == pytest.approx(known)
        assert before.get(name) != after[name]


def test_the_examples_are_of_this_machine() -> None:
    assert FIRST_CPU in processors.allowed()
