"""Reading files of predictions: COCO results, label maps, panoptic results."""
