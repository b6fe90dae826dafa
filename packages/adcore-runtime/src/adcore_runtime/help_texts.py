"""Help of the options that `adcore predict` and `adcore-predict` share."""

REGIONS = "List each region's box, area, peak and outline in original pixels; with --out also in regions.csv."
PIXEL_THRESHOLD = "On the raw map, for --regions; without it, what no normal image of the calibration reached."
MIN_AREA = "Smallest region in original pixels, for --regions."
SAVE_CROPS = "Save a gray picture of each region in OUT/crops."
FULL_SIZE = "Write maps in the size of the original images; what the model does not see is NaN."
CATEGORY = "Use this category's own threshold, of a model that has one for each."
REVIEW_BAND = "Two raw scores: good below LOW, bad from HIGH on, between them to be looked at."
