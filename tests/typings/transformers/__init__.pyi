# What infuse takes from transformers, for pyright alone: the package's own file would have it read four hundred models.
from transformers.models.clip.configuration_clip import CLIPTextConfig as CLIPTextConfig
from transformers.models.clip.configuration_clip import CLIPVisionConfig as CLIPVisionConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as CLIPImageProcessorPil
from transformers.models.clip.modeling_clip import CLIPTextModel as CLIPTextModel
from transformers.models.clip.modeling_clip import CLIPTextModelWithProjection as CLIPTextModelWithProjection
from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection as CLIPVisionModelWithProjection
from transformers.models.clip.tokenization_clip import CLIPTokenizer as CLIPTokenizer
