"""The figures of a steering run, and what they mean. Nothing here imports torch."""

MEANINGS = {  # in the order in which they are printed
    "gain_classifier": "σ, the target's change as the steering classifier sees it",
    "gain_judge": "σ, as the judge sees it",
    "agreement": "correlation of the two over samples",
    "hacking_gap": "σ of gain that the judge does not confirm",
    "attribute_dependency": "σ, mean change of the other attributes",
    "attribute_dependency_max": "σ, the largest",
    "attribute_dependency_all": "σ, the mean with those that the target excludes by its meaning",
    "success_rate": "of the images that lacked what was wanted; – if none did",
    "preservation_rate": "of the other attributes' states, in groups of five images or more",
    "noise_norm_percentile": "of ‖z‖² in the prior; 50 is typical",
}

UNJUDGED = ("gain_classifier", "noise_norm_percentile")  # for which no judge is needed
NUMBERS = ("penalty_weight", "num_steps", "step_size", "num_images", "seed")  # of a run's settings, beside its figures
