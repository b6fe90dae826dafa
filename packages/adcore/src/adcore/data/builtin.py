"""The dataset layouts that adcore itself reads, as cards: plain data, no torch."""

from adcore.cards import DatasetCard

MVTEC_LAYOUT = "CATEGORY/train/good, CATEGORY/test/DEFECT, CATEGORY/ground_truth/DEFECT/*_mask.png"
VISA_LAYOUT = "split_csv/1cls.csv (object,split,label,image,mask) beside CATEGORY/Data/Images and Masks"
BTAD_LAYOUT = "CATEGORY/train/ok, CATEGORY/test/ok, CATEGORY/test/ko, CATEGORY/ground_truth/ko"
FOLDER_LAYOUT = "a tree of images in folders such as good/ and bad/, train/good and test/DEFECT, ground_truth/"
HDMAP_LAYOUT = "DOMAIN/train/good, DOMAIN/test/good, DOMAIN/test/fault (float32 TIFF or 16-bit PNG)"

DATASET_CARDS = [
    DatasetCard("mvtec", "adcore.data.mvtec:MVTec", "MVTec AD", MVTEC_LAYOUT, aliases=("mvtec-ad", "mvtecad")),
    DatasetCard("visa", "adcore.data.visa:VisA", "VisA", VISA_LAYOUT),
    DatasetCard("btad", "adcore.data.btad:BTAD", "BTAD (beanTech)", BTAD_LAYOUT),
    DatasetCard("hdmap", "adcore.data.hdmap:HDMap", "HDMAP (health maps of gears, by domain)", HDMAP_LAYOUT),
    DatasetCard("folder", "adcore.data.folder:Folder", "Any tree of images", FOLDER_LAYOUT),
]
