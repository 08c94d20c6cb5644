"""Options that make the quickstart configuration train in seconds on the tiny dataset."""

TINY = [
    *("MODEL.TIMM.NAME", "test_resnet", "MODEL.TIMM.OUTPUT_STRIDE", "16"),
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3", "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", "8"),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", "8", "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", "[8]"),
    *("DATASETS.TRAIN", "('tiny_semantic_train',)", "DATASETS.TEST", "('tiny_semantic_test',)"),
    *("INPUT.MIN_SIZE_TRAIN", "(40,)", "INPUT.MIN_SIZE_TEST", "40", "INPUT.CROP.ENABLED", "False"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "3", "SOLVER.WARMUP_ITERS", "0"),
    *("SOLVER.AMP.ENABLED", "False", "DATALOADER.NUM_WORKERS", "0", "SEED", "7", "LOG_PERIOD", "1"),
    *("TEST.REPORT", "False"),  # tests/engine/test_run_report.py turns it on
]
