"""What the model sees: order, mixture, replay and corruption of the data.

    order = tp.data.quality_order(scores, "ascend")            # worst first, best last
    mixer = tp.data.ReplayMixer(batch_size=1104, fraction=0.05, new=n, old=m)
    rate = tp.data.mask_rate(low=0.15, high=0.30, warmup="5%")

Names load when they are first touched; only collators and streams need PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trainplan._extras import require

if TYPE_CHECKING:
    from trainplan.data.ability_pacing import (
        AbilityPacing,
        ability_subset,
        competence_count,
        rank_examples,
        two_step_count,
    )
    from trainplan.data.age_schedule import AgeSchedule
    from trainplan.data.augmentation import Augment, Strengths, rand_augment
    from trainplan.data.bandwidth import (
        BandwidthStages,
        bandwidth_stages,
        equal_cost_stages,
    )
    from trainplan.data.bandwidth_search import greedy_bandwidths
    from trainplan.data.batch_replay import BatchReplay
    from trainplan.data.batches import Batch
    from trainplan.data.class_order import (
        CurriculumDesigner,
        OrderAgreement,
        order_agreement,
        order_scores,
    )
    from trainplan.data.collators import WholeWordCollator
    from trainplan.data.completions import completion_labels, percentile_length_filter
    from trainplan.data.corrections import CorrectionBuilder, answer_example, correction_example
    from trainplan.data.curriculum import Curriculum
    from trainplan.data.difficulty import (
        Ranking,
        column_difficulty,
        controls,
        group_difficulty,
        length_difficulty,
        random_difficulty,
        rarity_difficulty,
    )
    from trainplan.data.distances import class_distances, mmd2, transport
    from trainplan.data.domain_ranking import domain_distances
    from trainplan.data.domain_shift import (
        ArctanRamp,
        consistency_weight,
        follow,
        head_rate,
    )
    from trainplan.data.domains import DomainCurriculum, near_to_far, stages_open
    from trainplan.data.draws import Draws
    from trainplan.data.exposure import Exposure, describe, exposures
    from trainplan.data.feedback import Feedback, Tally
    from trainplan.data.forcing import teacher_forcing
    from trainplan.data.forgetting import Forgetting
    from trainplan.data.frames import FrameCountCurriculum, FrameSampler, take_frames
    from trainplan.data.free_running import continue_prompts, exposure_gap
    from trainplan.data.frequency import LowFrequencyCrop, lanczos_resize, low_frequency_crop
    from trainplan.data.generative_regression import QuantileVocabulary, quantile_amounts, xauc
    from trainplan.data.horizon_curriculum import HorizonCurriculum
    from trainplan.data.item_response import (
        RaschFit,
        difficulty_at,
        estimate_ability,
        fit_rasch,
        negative_log_posterior,
    )
    from trainplan.data.joined import Joined
    from trainplan.data.masking import (
        Selection,
        choose_words,
        mask_rate,
        replace_words,
        select_words,
    )
    from trainplan.data.memory_tasks import MemoryStream, MemoryTask, delayed_match, parity
    from trainplan.data.mixing import Mixture, temperature_weights
    from trainplan.data.mixture import (
        Stage,
        branch_cost,
        mixture_at,
        mixture_tokens,
        normalised,
    )
    from trainplan.data.mixture_replay import Replay
    from trainplan.data.motion import Motion, MotionCurriculum, motion_magnitude
    from trainplan.data.multigrid import GridPhase, MultigridSchedule, Normalisation
    from trainplan.data.multigrid_batches import MultigridBatches
    from trainplan.data.order import Order
    from trainplan.data.pacings import cyclic_counts, cyclic_sizes, pacing, ramp_sizes
    from trainplan.data.perturbations import (
        block_reverse,
        block_shuffle,
        block_size,
        blocks,
        group_drop,
        inversions,
        perturbation_distance,
        random_drop,
        similar_drop,
    )
    from trainplan.data.phases import Phase, PhaseCurriculum
    from trainplan.data.planned import from_plan
    from trainplan.data.preferences import (
        PairFilter,
        ProgressivePreferenceSchedule,
        preference_pairs,
    )
    from trainplan.data.pseudo_labels import (
        cluster_labels,
        diversity_loss,
        diversity_weights,
        domain_diversity,
        identity_batches,
        positives,
    )
    from trainplan.data.quality import QualityOrder, phase_order, quality_order, rate_share
    from trainplan.data.rehearsal import Rehearsal
    from trainplan.data.repeated import Repeated
    from trainplan.data.replay import (
        ReplayBatch,
        ReplayBudget,
        ReplayMixer,
        replay_budget,
        replay_counts,
    )
    from trainplan.data.reservoir import BalancedReservoir, Reservoir
    from trainplan.data.sampler import BatchSampler
    from trainplan.data.scoring import length_scorer, loss_scorer, score
    from trainplan.data.self_tokens import SelfTokenMixer, mix_context, own_tokens
    from trainplan.data.shapes import Shaped, ShapedBatch, Shapes
    from trainplan.data.short_cycle import ShortCycleBatchSampler, short_cycle_sizes
    from trainplan.data.sources import Replacement, Shuffle, Source
    from trainplan.data.streams import Streams
    from trainplan.data.temporal_tables import expand_temporal_embedding, resize_frames
    from trainplan.data.token_budget import TokenBudget
    from trainplan.data.triplets import Triplets, motion_triplets
    from trainplan.data.turns import Turns
    from trainplan.data.two_pass import TwoPassSampling, mix_decoder_inputs
    from trainplan.data.varied_batches import VariedBatches
    from trainplan.data.video_clips import VideoClips
    from trainplan.data.video_filters import (
        clarity,
        frame_weights,
        fuse_segments,
        keep_groups,
        keep_scenes,
        sharpest_frame,
        similarity_groups,
        usable_clips,
    )
    from trainplan.data.weighted_subsets import WeightedSubsets, round_counts
    from trainplan.data.weighting import effective_number, inclusion_probabilities, loss_weights

_HOME = {
    "QuantileVocabulary": "generative_regression",
    "quantile_amounts": "generative_regression",
    "xauc": "generative_regression",
    "TwoPassSampling": "two_pass",
    "mix_decoder_inputs": "two_pass",
    "CorrectionBuilder": "corrections",
    "answer_example": "corrections",
    "correction_example": "corrections",
    "continue_prompts": "free_running",
    "exposure_gap": "free_running",
    "SelfTokenMixer": "self_tokens",
    "mix_context": "self_tokens",
    "own_tokens": "self_tokens",
    "teacher_forcing": "forcing",
    "competence_count": "ability_pacing",
    "ArctanRamp": "domain_shift",
    "consistency_weight": "domain_shift",
    "head_rate": "domain_shift",
    "follow": "domain_shift",
    "negative_log_posterior": "item_response",
    "fit_rasch": "item_response",
    "estimate_ability": "item_response",
    "difficulty_at": "item_response",
    "RaschFit": "item_response",
    "two_step_count": "ability_pacing",
    "rank_examples": "ability_pacing",
    "ability_subset": "ability_pacing",
    "AbilityPacing": "ability_pacing",
    "loss_weights": "weighting",
    "inclusion_probabilities": "weighting",
    "effective_number": "weighting",
    "round_counts": "weighted_subsets",
    "WeightedSubsets": "weighted_subsets",
    "ramp_sizes": "pacings",
    "cyclic_sizes": "pacings",
    "cyclic_counts": "pacings",
    "BandwidthStages": "bandwidth",
    "BatchReplay": "batch_replay",
    "LowFrequencyCrop": "frequency",
    "Augment": "augmentation",
    "Strengths": "augmentation",
    "bandwidth_stages": "bandwidth",
    "equal_cost_stages": "bandwidth",
    "greedy_bandwidths": "bandwidth_search",
    "lanczos_resize": "frequency",
    "low_frequency_crop": "frequency",
    "rand_augment": "augmentation",
    "AgeSchedule": "age_schedule",
    "BalancedReservoir": "reservoir",
    "Rehearsal": "rehearsal",
    "Replay": "mixture_replay",
    "Reservoir": "reservoir",
    "Repeated": "repeated",
    "Replacement": "sources",
    "from_plan": "planned",
    "FrameCountCurriculum": "frames",
    "FrameSampler": "frames",
    "take_frames": "frames",
    "expand_temporal_embedding": "temporal_tables",
    "resize_frames": "temporal_tables",
    "Turns": "turns",
    "TokenBudget": "token_budget",
    "VariedBatches": "varied_batches",
    "GridPhase": "multigrid",
    "MultigridBatches": "multigrid_batches",
    "MultigridSchedule": "multigrid",
    "Normalisation": "multigrid",
    "ShortCycleBatchSampler": "short_cycle",
    "short_cycle_sizes": "short_cycle",
    "VideoClips": "video_clips",
    "HorizonCurriculum": "horizon_curriculum",
    "Joined": "joined",
    "MemoryStream": "memory_tasks",
    "MemoryTask": "memory_tasks",
    "delayed_match": "memory_tasks",
    "parity": "memory_tasks",
    "Streams": "streams",
    "Mixture": "mixing",
    "Motion": "motion",
    "MotionCurriculum": "motion",
    "motion_magnitude": "motion",
    "Triplets": "triplets",
    "motion_triplets": "triplets",
    "temperature_weights": "mixing",
    "pacing": "pacings",
    "class_distances": "distances",
    "CurriculumDesigner": "class_order",
    "OrderAgreement": "class_order",
    "order_agreement": "class_order",
    "order_scores": "class_order",
    "mmd2": "distances",
    "transport": "distances",
    "domain_distances": "domain_ranking",
    "DomainCurriculum": "domains",
    "near_to_far": "domains",
    "stages_open": "domains",
    "diversity_loss": "pseudo_labels",
    "diversity_weights": "pseudo_labels",
    "domain_diversity": "pseudo_labels",
    "identity_batches": "pseudo_labels",
    "positives": "pseudo_labels",
    "cluster_labels": "pseudo_labels",
    "Curriculum": "curriculum",
    "Phase": "phases",
    "PairFilter": "preferences",
    "ProgressivePreferenceSchedule": "preferences",
    "preference_pairs": "preferences",
    "block_reverse": "perturbations",
    "block_shuffle": "perturbations",
    "block_size": "perturbations",
    "blocks": "perturbations",
    "group_drop": "perturbations",
    "inversions": "perturbations",
    "perturbation_distance": "perturbations",
    "random_drop": "perturbations",
    "similar_drop": "perturbations",
    "clarity": "video_filters",
    "frame_weights": "video_filters",
    "fuse_segments": "video_filters",
    "keep_groups": "video_filters",
    "keep_scenes": "video_filters",
    "sharpest_frame": "video_filters",
    "similarity_groups": "video_filters",
    "usable_clips": "video_filters",
    "PhaseCurriculum": "phases",
    "completion_labels": "completions",
    "percentile_length_filter": "completions",
    "Exposure": "exposure",
    "describe": "exposure",
    "exposures": "exposure",
    "Feedback": "feedback",
    "Tally": "feedback",
    "Forgetting": "forgetting",
    "Ranking": "difficulty",
    "column_difficulty": "difficulty",
    "group_difficulty": "difficulty",
    "controls": "difficulty",
    "length_difficulty": "difficulty",
    "random_difficulty": "difficulty",
    "rarity_difficulty": "difficulty",
    "length_scorer": "scoring",
    "loss_scorer": "scoring",
    "score": "scoring",
    "Batch": "batches",
    "BatchSampler": "sampler",
    "Shaped": "shapes",
    "ShapedBatch": "shapes",
    "Shapes": "shapes",
    "Shuffle": "sources",
    "Source": "sources",
    "Draws": "draws",
    "Order": "order",
    "QualityOrder": "quality",
    "ReplayBatch": "replay",
    "ReplayBudget": "replay",
    "ReplayMixer": "replay",
    "Selection": "masking",
    "Stage": "mixture",
    "WholeWordCollator": "collators",
    "branch_cost": "mixture",
    "choose_words": "masking",
    "mask_rate": "masking",
    "mixture_at": "mixture",
    "mixture_tokens": "mixture",
    "normalised": "mixture",
    "phase_order": "quality",
    "quality_order": "quality",
    "rate_share": "quality",
    "replace_words": "masking",
    "replay_budget": "replay",
    "replay_counts": "replay",
    "select_words": "masking",
}

__all__ = [
    "AbilityPacing",
    "AgeSchedule",
    "ArctanRamp",
    "Augment",
    "BalancedReservoir",
    "BandwidthStages",
    "Batch",
    "BatchReplay",
    "BatchSampler",
    "CorrectionBuilder",
    "Curriculum",
    "CurriculumDesigner",
    "DomainCurriculum",
    "Draws",
    "Exposure",
    "Feedback",
    "Forgetting",
    "FrameCountCurriculum",
    "FrameSampler",
    "GridPhase",
    "HorizonCurriculum",
    "Joined",
    "LowFrequencyCrop",
    "MemoryStream",
    "MemoryTask",
    "Mixture",
    "Motion",
    "MotionCurriculum",
    "MultigridBatches",
    "MultigridSchedule",
    "Normalisation",
    "Order",
    "OrderAgreement",
    "PairFilter",
    "Phase",
    "PhaseCurriculum",
    "ProgressivePreferenceSchedule",
    "QualityOrder",
    "QuantileVocabulary",
    "Ranking",
    "RaschFit",
    "Rehearsal",
    "Repeated",
    "Replacement",
    "Replay",
    "ReplayBatch",
    "ReplayBudget",
    "ReplayMixer",
    "Reservoir",
    "Selection",
    "SelfTokenMixer",
    "Shaped",
    "ShapedBatch",
    "Shapes",
    "ShortCycleBatchSampler",
    "Shuffle",
    "Source",
    "Stage",
    "Streams",
    "Strengths",
    "Tally",
    "TokenBudget",
    "Triplets",
    "Turns",
    "TwoPassSampling",
    "VariedBatches",
    "VideoClips",
    "WeightedSubsets",
    "WholeWordCollator",
    "ability_subset",
    "answer_example",
    "bandwidth_stages",
    "block_reverse",
    "block_shuffle",
    "block_size",
    "blocks",
    "branch_cost",
    "choose_words",
    "clarity",
    "class_distances",
    "cluster_labels",
    "column_difficulty",
    "competence_count",
    "completion_labels",
    "consistency_weight",
    "continue_prompts",
    "controls",
    "correction_example",
    "cyclic_counts",
    "cyclic_sizes",
    "delayed_match",
    "describe",
    "difficulty_at",
    "diversity_loss",
    "diversity_weights",
    "domain_distances",
    "domain_diversity",
    "effective_number",
    "equal_cost_stages",
    "estimate_ability",
    "expand_temporal_embedding",
    "exposure_gap",
    "exposures",
    "fit_rasch",
    "follow",
    "frame_weights",
    "from_plan",
    "fuse_segments",
    "greedy_bandwidths",
    "group_difficulty",
    "group_drop",
    "head_rate",
    "identity_batches",
    "inclusion_probabilities",
    "inversions",
    "keep_groups",
    "keep_scenes",
    "lanczos_resize",
    "length_difficulty",
    "length_scorer",
    "loss_scorer",
    "loss_weights",
    "low_frequency_crop",
    "mask_rate",
    "mix_context",
    "mix_decoder_inputs",
    "mixture_at",
    "mixture_tokens",
    "mmd2",
    "motion_magnitude",
    "motion_triplets",
    "near_to_far",
    "negative_log_posterior",
    "normalised",
    "order_agreement",
    "order_scores",
    "own_tokens",
    "pacing",
    "parity",
    "percentile_length_filter",
    "perturbation_distance",
    "phase_order",
    "positives",
    "preference_pairs",
    "quality_order",
    "quantile_amounts",
    "ramp_sizes",
    "rand_augment",
    "random_difficulty",
    "random_drop",
    "rank_examples",
    "rarity_difficulty",
    "rate_share",
    "replace_words",
    "replay_budget",
    "replay_counts",
    "resize_frames",
    "round_counts",
    "score",
    "select_words",
    "sharpest_frame",
    "short_cycle_sizes",
    "similar_drop",
    "similarity_groups",
    "stages_open",
    "take_frames",
    "teacher_forcing",
    "temperature_weights",
    "transport",
    "two_step_count",
    "usable_clips",
    "xauc",
]


_TORCH = {
    "batch_replay",
    "collators",
    "corrections",
    "free_running",
    "frequency",
    "self_tokens",
    "streams",
    "triplets",
    "two_pass",
}
"""Modules that need PyTorch."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _HOME[name] in _TORCH:
        require("torch", extra="torch")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
